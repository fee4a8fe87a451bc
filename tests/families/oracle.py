"""The reference that everything is held against: transformers' whole model, one request at a time, greedy, float32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Generated:
    """A greedy answer: `tokens` include the end token where one was reached; `text` leaves special tokens out."""

    tokens: tuple[int, ...]
    text: str
    prompt_tokens: tuple[int, ...]
    logit_gaps: tuple[float, ...]  # best logit minus the second best, for each token of the answer


class Oracle:
    """A whole model with its tokenizer and image processor, through transformers' public interface only."""

    def __init__(self, model_dir: Path, dtype: torch.dtype = torch.float32) -> None:
        config = transformers.AutoConfig.from_pretrained(model_dir)
        architecture = getattr(transformers, config.architectures[0])
        self.model, info = architecture.from_pretrained(
            model_dir, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
        for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            if info[fault]:
                raise RuntimeError(f"the whole model of {model_dir} has {fault}: {info[fault]}")
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
        self.image_processor = transformers.AutoImageProcessor.from_pretrained(model_dir)

    def inputs(self, messages: Sequence[Message], images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The whole model's arguments for one prompt: ids [1, S], mask, token types; with images, pixels and grids."""
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        inputs: dict[str, torch.Tensor] = {}
        if images:
            pixels = self.image_processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
            inputs = {"pixel_values": pixels["pixel_values"], "image_grid_thw": pixels["image_grid_thw"]}
        ids = self.tokenizer(self._expand(text, inputs.get("image_grid_thw")), return_tensors="pt")["input_ids"]
        types = (ids == self.model.config.image_token_id).long()
        return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}

    def _expand(self, text: str, grids: torch.Tensor | None) -> str:
        pieces = text.split("<|image_pad|>")
        counts = [] if grids is None else [int(g.prod()) // self.image_processor.merge_size**2 for g in grids]
        if len(pieces) != len(counts) + 1:
            raise ValueError(f"{len(pieces) - 1} placeholders for {len(counts)} images")
        joints = ["<|image_pad|>" * count for count in counts] + [""]
        return "".join(piece + joint for piece, joint in zip(pieces, joints, strict=True))

    @torch.no_grad()
    def generate(self, messages: Sequence[Message], images: Sequence[Image.Image], max_new_tokens: int) -> Generated:
        """The greedy answer to one prompt."""
        inputs = self.inputs(messages, images)
        greedy = transformers.GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=self.model.generation_config.pad_token_id,
            output_logits=True,
            return_dict_in_generate=True,
        )
        self.model.model.rope_deltas = None
        output = self.model.generate(**inputs, generation_config=greedy)
        prompt = inputs["input_ids"][0].tolist()
        tokens = output.sequences[0].tolist()[len(prompt) :]
        gaps = [float(best[0] - best[1]) for best in (logits[0].float().topk(2).values for logits in output.logits)]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Generated(tuple(tokens), text, tuple(prompt), tuple(gaps))

    @torch.no_grad()
    def choice_logprobs(
        self, messages: Sequence[Message], images: Sequence[Image.Image], choices: Sequence[str]
    ) -> tuple[float, ...]:
        """The total log-probability of each choice's own tokens right after the prompt, one forward a choice."""
        return tuple(self._choice_logprob(messages, images, choice) for choice in choices)

    def _choice_logprob(self, messages: Sequence[Message], images: Sequence[Image.Image], choice: str) -> float:
        label = self.tokenizer(choice, return_tensors="pt", add_special_tokens=False)["input_ids"]
        logprobs = self.next_logprobs(messages, images, label[0].tolist())
        return float(logprobs.gather(1, label[0, :, None]).sum())

    @torch.no_grad()
    def next_logprobs(
        self, messages: Sequence[Message], images: Sequence[Image.Image], answer: Sequence[int]
    ) -> torch.Tensor:
        """The log-probability of every token in each place of an answer, [answer tokens, vocabulary]: one forward."""
        inputs = self.inputs(messages, images)
        label = torch.tensor([list(answer)])
        prompt_len = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], label], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(label)], dim=1)
        self.model.model.rope_deltas = None
        logits = self.model(**inputs).logits[0, prompt_len - 1 : -1].float()
        return logits.log_softmax(dim=-1)

    @torch.no_grad()
    def logits(self, messages: Sequence[Message], images: Sequence[Image.Image]) -> torch.Tensor:
        """The logits of every position of one prompt, [S, vocabulary]."""
        self.model.model.rope_deltas = None
        logits: torch.Tensor = self.model(**self.inputs(messages, images)).logits[0]
        return logits


@lru_cache(maxsize=4)
def load(model_dir: Path) -> Oracle:
    """The whole model of `model_dir`, kept while it is among the last four asked for."""
    return Oracle(model_dir)


def question(text: str, num_images: int = 0, system: str | None = None) -> list[dict[str, Any]]:
    """Messages of one question: images first, then the text, `system` in front where given."""
    content = [{"type": "image"} for _ in range(num_images)] + [{"type": "text", "text": text}]
    turns: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, {"role": "user", "content": content if num_images else text}]


def generate(
    model_dir: Path,
    text: str | Sequence[Message],
    images: Sequence[Image.Image] = (),
    *,
    system: str | None = None,
    max_new_tokens: int = 16,
) -> Generated:
    """The whole model's greedy answer to a question, or to whole `messages` given in place of `text`."""
    return load(model_dir).generate(_messages(text, images, system), images, max_new_tokens)


def choice_logprobs(
    model_dir: Path,
    text: str | Sequence[Message],
    choices: Sequence[str],
    images: Sequence[Image.Image] = (),
    *,
    system: str | None = None,
) -> tuple[float, ...]:
    """The whole model's total log-probability of each choice after the prompt."""
    return load(model_dir).choice_logprobs(_messages(text, images, system), images, choices)


def _messages(text: str | Sequence[Message], images: Sequence[Image.Image], system: str | None) -> Sequence[Message]:
    return question(text, len(images), system) if isinstance(text, str) else text


def picture(seed: int, width: int = 112, height: int = 84) -> Image.Image:
    """A picture of coloured blocks, a different one for each seed."""
    noise = torch.randint(0, 256, (4, 5, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(noise.numpy(), "RGB").resize((width, height), Image.Resampling.BICUBIC)
