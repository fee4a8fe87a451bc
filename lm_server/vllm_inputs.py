"""A question in vLLM's words: its prompt, its images, how its tokens are chosen. vLLM is not imported."""

import itertools
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lm_server.constraints import Constraint
from lm_server.prompt import Prompt
from lm_server.runner import ImageEmbedding
from lm_server.sampler import Sampling
from lm_server.tickets import Work

# vLLM takes no 0, which keeps the likeliest token alone; nor does this keep another.
LEAST_TOP_P = 1e-9
# Its engine reads seeds as signed.
NUM_SEEDS = 2**63
MAX_MARKS = 65_536


@dataclass(slots=True)
class VllmAdapter:
    """A LoRA adapter that vLLM reads from its directory, as PEFT writes it, when a question first needs it.

    Attributes:
        number: From 1; never given twice, so that one that replaces another of its name is not taken for it.
        name: What requests choose it by.
        path: The directory, on every host where vLLM's workers run.
        rank: The largest of its ranks.
        num_bytes: Of its weights as stored.
        is_gone: It is not served any more; only what runs goes on with it.
    """

    number: int
    name: str
    path: str
    rank: int = 0
    num_bytes: int = 0
    is_gone: bool = False

    @property
    def identity(self) -> str:
        """Part of the names that vLLM keeps prefixes under."""
        return f"{self.name}#{self.number}"


class ImageMarks:
    """A mark for each image, part of the name under which vLLM keeps prefixes that show it.

    An image that was forgotten gets another one, so that nothing that was computed before is found again. So does one
    that was not asked about for long, which costs no more than its prefix.
    """

    def __init__(self, most: int = MAX_MARKS) -> None:
        self._most = most
        self._marks: OrderedDict[str, int] = OrderedDict()
        self._next = itertools.count()

    def of(self, image_id: str) -> int:
        """The image's mark now."""
        if image_id not in self._marks:
            self._marks[image_id] = next(self._next)
        self._marks.move_to_end(image_id)
        if len(self._marks) > self._most:
            self._marks.popitem(last=False)
        return self._marks[image_id]

    def forget(self, image_id: str) -> None:
        """Gives the image another mark from now on."""
        self._marks.pop(image_id, None)


def prompt_of(
    work: Work, embeddings: Mapping[str, ImageEmbedding], marks: ImageMarks, dtype: torch.dtype
) -> dict[str, Any]:
    """What vLLM is asked: token ids, every image's embedding, and the names that prefixes are kept under.

    Those name the tenant, the image, the vision fingerprint and the image's mark: prefixes of different tenants, or of
    embeddings from different towers, are never taken for each other.
    """
    spans = work.prompt.images
    asked: dict[str, Any] = {"prompt_token_ids": folded(work.prompt), "cache_salt": work.tenant or "public"}
    if spans:
        rows = torch.cat([_rows(embeddings[span.image.image_id]) for span in spans]).to(dtype)
        names = [f"{work.fingerprint}:{span.image.image_id}:{marks.of(span.image.image_id)}" for span in spans]
        grids = torch.tensor([span.image.grid for span in spans])
        asked["multi_modal_data"] = {"image": {"image_embeds": rows, "image_grid_thw": grids}}
        asked["multi_modal_uuids"] = {"image": names}
    return asked


def _rows(embedding: ImageEmbedding) -> torch.Tensor:
    """[tokens, (1 + DeepStack layers) x H]: as vLLM's own towers leave it."""
    return torch.cat((embedding.merged, *embedding.deepstack), dim=1)


def folded(prompt: Prompt) -> list[int]:
    """The prompt's tokens with one placeholder an image, which vLLM expands itself."""
    tokens: list[int] = []
    start = 0
    for span in prompt.images:
        tokens += prompt.tokens[start : span.start + 1]
        start = span.end
    return tokens + list(prompt.tokens[start:])


def sampling_of(work: Work, end_tokens: Collection[int]) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams. Text is made, and stop strings are found, on our side."""
    sampling = work.sampling
    return {
        "max_tokens": work.max_tokens,
        "stop_token_ids": sorted(end_tokens),
        "detokenize": False,
        "logprobs": sampling.top_logprobs,
        **_drawing(sampling),
    }


def _drawing(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": max(sampling.top_p, LEAST_TOP_P),
        "top_k": sampling.top_k,
        "seed": None if sampling.seed is None else sampling.seed % NUM_SEEDS,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
    }


def scoring_of(tokens: Sequence[int]) -> dict[str, Any]:
    """Arguments of SamplingParams that tell the log-probabilities of these tokens in the next place."""
    return {"max_tokens": 1, "temperature": 0.0, "detokenize": False, "logprob_token_ids": list(tokens)}


def form_of(constraint: Constraint) -> dict[str, Any]:
    """Arguments of vLLM's StructuredOutputsParams."""
    match constraint.kind:
        case "json_schema":
            return {"json": constraint.texts[0]}
        case "json_object":
            return {"json_object": True}
        case "regex":
            return {"regex": constraint.texts[0]}
        case "choices":
            return {"choice": list(constraint.texts)}
        case _:
            return {"grammar": constraint.texts[0]}
