"""transformers' whole model, question after question: the reference for every token."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from benchmarks.systems.system import Setup
from benchmarks.workload import Answer, Outcome, Question, Workload

PLACEHOLDER = "<|image_pad|>"


class WholeModel:
    """A whole model with its tokenizer and image processor, through transformers' public interface only."""

    def __init__(self, checkpoint: Path, device: str = "cpu", dtype: str = "auto") -> None:
        config = transformers.AutoConfig.from_pretrained(checkpoint)
        architecture = getattr(transformers, config.architectures[0])
        model: Any = architecture.from_pretrained(checkpoint, dtype=dtype, attn_implementation="sdpa")
        self.model: Any = model.eval().to(device)
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
        self.images: Any = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")

    def inputs(self, questions: Sequence[Question], pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The model's arguments for a batch of one-picture prompts, padded on the left: ids [B, S], pixels, grids."""
        pixels = self.images(images=list(pictures), return_tensors="pt")
        counts = (pixels["image_grid_thw"].prod(dim=1) // self.images.merge_size**2).tolist()
        prompts = [
            self._prompt(question).replace(PLACEHOLDER, PLACEHOLDER * n)
            for question, n in zip(questions, counts, strict=True)
        ]
        encoded = self.tokenizer(prompts, return_tensors="pt", padding=True)
        ids = encoded["input_ids"]
        found = {
            "input_ids": ids,
            "attention_mask": encoded["attention_mask"],
            "mm_token_type_ids": (ids == self.model.config.image_token_id).long(),
            "pixel_values": pixels["pixel_values"].to(self.model.dtype),
            "image_grid_thw": pixels["image_grid_thw"],
        }
        return {name: tensor.to(self.model.device) for name, tensor in found.items()}

    def _prompt(self, question: Question) -> str:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @torch.inference_mode()
    def generate(self, inputs: dict[str, torch.Tensor], max_tokens: int, *, is_ending: bool = False) -> torch.Tensor:
        """Greedy tokens [B, max_tokens]; `is_ending` lets the end token end an answer earlier."""
        greedy = transformers.GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            min_new_tokens=None if is_ending else max_tokens,
            eos_token_id=self.model.generation_config.eos_token_id if is_ending else None,
            pad_token_id=self.model.generation_config.pad_token_id,
        )
        self.model.model.rope_deltas = None
        tokens: torch.Tensor = self.model.generate(**inputs, generation_config=greedy)
        return tokens[:, inputs["input_ids"].shape[1] :]

    @torch.inference_mode()
    def score(self, inputs: dict[str, torch.Tensor], choices: Sequence[str]) -> torch.Tensor:
        """Probabilities [B, choices] of one-token choices, among the choices."""
        ids = [self.tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
        if any(len(tokens) != 1 for tokens in ids):
            raise ValueError(f"the choices {choices} must be one token each")
        self.model.model.rope_deltas = None
        logits = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        scores: torch.Tensor = logits[:, [tokens[0] for tokens in ids]].softmax(dim=-1)
        return scores


class Worker:
    """Answers `batch_size` questions at a time, each with its own copy of its picture, as `generate` takes them."""

    batch_size = 1

    def start(self, setup: Setup) -> None:
        """Loads the model. Room for keys and values is what a batch needs; nothing is kept."""
        torch.set_num_threads(setup.threads)
        self.whole = WholeModel(Path(setup.checkpoint), setup.device, setup.dtype)

    def run(self, workload: Workload, paths: Sequence[str]) -> Outcome:
        """Batch after batch."""
        size = self.batch_size if workload.in_flight is None else min(self.batch_size, workload.in_flight)
        started = time.perf_counter()
        answers: list[Answer] = []
        for first in range(0, len(workload.questions), size):
            answers += self._batch(workload.questions[first : first + size], paths, workload, started)
        return Outcome(time.perf_counter() - started, tuple(answers))

    def _batch(
        self, questions: Sequence[Question], paths: Sequence[str], workload: Workload, started: float
    ) -> list[Answer]:
        asked = time.perf_counter() if workload.in_flight else started
        pictures = [Image.open(paths[question.picture]).convert("RGB") for question in questions]
        inputs = self.whole.inputs(questions, pictures)
        if questions[0].choices:
            return self._scored(questions, inputs, asked)
        first_token_s = None
        if workload.is_streamed:
            # Nothing streams out of `generate`: the first token is timed by itself.
            self.whole.generate(inputs, 1)
            first_token_s = time.perf_counter() - asked
            asked = time.perf_counter()
        longest = max(question.max_tokens for question in questions)
        tokens = self.whole.generate(inputs, longest, is_ending=workload.is_ending)
        texts = self.whole.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        elapsed = time.perf_counter() - asked
        return [
            Answer(text, question.max_tokens, elapsed, first_token_s)
            for question, text in zip(questions, texts, strict=True)
        ]

    def _scored(self, questions: Sequence[Question], inputs: dict[str, torch.Tensor], asked: float) -> list[Answer]:
        choices = questions[0].choices
        probabilities = self.whole.score(inputs, choices)
        elapsed = time.perf_counter() - asked
        return [Answer(choices[int(row.argmax())], 0, elapsed, elapsed, tuple(row.tolist())) for row in probabilities]

    def restart(self) -> None:
        """Nothing is kept between questions."""
