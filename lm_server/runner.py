"""Runs a step of the scheduler on the language half: rows in, logits out. transformers keeps the layers' code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lm_server.attention import NAME, StepAttention, order_runs
from lm_server.kv import KvMemory
from lm_server.scheduler import Logits, Run


@dataclass(frozen=True, slots=True)
class ImageEmbedding:
    """The vision half's output for one image: merged [tokens, H], and one [tokens, H] per DeepStack layer."""

    merged: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class _ImageRows:
    """Rows of the step that show tokens `start` to `start + count` of an image."""

    embedding: ImageEmbedding
    first_row: int
    start: int
    count: int

    @property
    def rows(self) -> slice:
        return slice(self.first_row, self.first_row + self.count)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[self.start : self.start + self.count]


class ModelRunner:
    """The language half with its key/value memory. Owned by one thread.

    `model` is a Qwen-VL ForConditionalGeneration without its vision tower.
    """

    def __init__(self, model: Any) -> None:
        self._text = model.model.language_model
        self._lm_head = model.lm_head
        config = self._text.config
        config._attn_implementation = NAME
        weight = self._text.embed_tokens.weight
        # Offloaded weights are on no device; their hooks move what comes in.
        self._device = "cpu" if weight.is_meta else weight.device
        self.memory = KvMemory(config.num_hidden_layers)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        values_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim
        self.kv_bytes_per_token: int = values_per_token * self._text.embed_tokens.weight.element_size()

    @torch.inference_mode()
    def run(self, runs: Sequence[Run]) -> Mapping[int, torch.Tensor]:
        """Computes the runs' rows, keeps their keys and values, and returns the logits that are wanted.

        Returns:
            By the run's place in `runs`: float32 logits [1, V] or, for a scored choice, [R, V].
        """
        ordered = order_runs(runs)
        hidden = self._embed(ordered)
        images = _image_rows(ordered)
        for image in images:
            hidden[0, image.rows] = image.of(image.embedding.merged).to(hidden.device, hidden.dtype)
        hidden = self._layers(hidden, ordered, images)
        return self._logits(hidden, ordered, {id(run): index for index, run in enumerate(runs)})

    def _embed(self, runs: Sequence[Run]) -> torch.Tensor:
        tokens = torch.tensor([[token for run in runs for token in run.tokens]])
        hidden: torch.Tensor = self._text.embed_tokens(tokens.to(self._device))
        return hidden

    def _layers(self, hidden: torch.Tensor, runs: Sequence[Run], images: Sequence[_ImageRows]) -> torch.Tensor:
        positions = torch.from_numpy(np.concatenate([run.positions for run in runs], axis=1))[:, None]
        rotary = self._text.rotary_emb(hidden, positions.to(hidden.device))
        step = StepAttention(runs, self.memory)
        for index, layer in enumerate(self._text.layers):
            hidden = layer(
                hidden,
                attention_mask=None,
                position_ids=None,
                past_key_values=None,
                position_embeddings=rotary,
                step=step,
            )
            for image in images:
                if index < len(image.embedding.deepstack):
                    features = image.of(image.embedding.deepstack[index])
                    hidden[0, image.rows] += features.to(hidden.device, hidden.dtype)
        return hidden

    def _logits(self, hidden: torch.Tensor, runs: Sequence[Run], places: Mapping[int, int]) -> dict[int, torch.Tensor]:
        wanted: list[tuple[int, slice]] = []
        row = 0
        for run in runs:
            row += run.num_rows
            if run.logits is not Logits.NONE:
                count = run.num_rows if run.logits is Logits.ALL else 1
                wanted.append((places[id(run)], slice(row - count, row)))
        if not wanted:
            return {}
        selected = torch.cat([hidden[0, rows] for _, rows in wanted])
        logits = self._lm_head(self._text.norm(selected)).float().cpu()
        counts = [rows.stop - rows.start for _, rows in wanted]
        return {place: part for (place, _), part in zip(wanted, logits.split(counts), strict=True)}


def _image_rows(runs: Sequence[Run]) -> list[_ImageRows]:
    found: list[_ImageRows] = []
    row = 0
    for run in runs:
        for span in run.images:
            start = max(span.start, run.first_token)
            end = min(span.end, run.first_token + run.num_rows)
            embedding = run.sequence.embeddings[span.image.image_id]
            if not isinstance(embedding, ImageEmbedding):
                raise TypeError("a sequence's embeddings are ImageEmbedding")
            place = row + start - run.first_token
            found.append(_ImageRows(embedding, place, start - span.start, end - start))
        row += run.num_rows
    return found
