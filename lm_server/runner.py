"""Runs a step of the scheduler on the language half: rows in, logits out. transformers keeps the layers' code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels import pack_linears
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

    `model` is a Qwen-VL ForConditionalGeneration without its vision tower; its linear layers are packed where that can
    be done. `kv_bytes` bounds the key/value memory.
    """

    def __init__(self, model: Any, kv_bytes: int) -> None:
        pack_linears(model)
        self._text = model.model.language_model
        self._lm_head = model.lm_head
        config = self._text.config
        config._attn_implementation = NAME
        weight = self._text.embed_tokens.weight
        # Offloaded weights are on no device; their hooks move what comes in.
        self._device = "cpu" if weight.is_meta else weight.device
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        values_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim
        self.kv_bytes_per_token: int = values_per_token * self._text.embed_tokens.weight.element_size()
        self.kv_tokens = kv_bytes // self.kv_bytes_per_token
        self.memory = KvMemory(config.num_hidden_layers, self.kv_tokens)

    @torch.inference_mode()
    def run(self, runs: Sequence[Run]) -> Mapping[int, torch.Tensor]:
        """Computes the runs' rows, keeps their keys and values, and returns the logits that are wanted.

        Returns:
            By the run's place in `runs`: float32 logits [1, V] or, for a scored choice, [R, V].
        """
        ordered = order_runs(runs)
        self.memory.place(run.block for run in ordered)
        wanted = _wanted(ordered)
        hidden = self._layers(ordered, [rows for _, rows in wanted])
        if not wanted:
            return {}
        logits = self._lm_head(self._text.norm(hidden)).float().cpu()
        places = {id(run): index for index, run in enumerate(runs)}
        parts = logits.split([rows.stop - rows.start for _, rows in wanted])
        return {places[id(run)]: part for (run, _), part in zip(wanted, parts, strict=True)}

    def _layers(self, runs: Sequence[Run], wanted: Sequence[slice]) -> torch.Tensor:
        """What the last layer makes of the wanted rows, [N, H]."""
        images = _image_rows(runs)
        hidden = self._embed(runs, images)
        positions = torch.from_numpy(np.concatenate([run.positions for run in runs], axis=1))[:, None]
        call = {
            "attention_mask": None,
            "position_ids": None,
            "past_key_values": None,
            "position_embeddings": self._text.rotary_emb(hidden, positions.to(hidden.device)),
            "step": StepAttention(runs, self.memory),
        }
        *layers, last = self._text.layers
        for index, layer in enumerate(layers):
            hidden = layer(hidden, **call)
            for image in images:
                if index < len(image.embedding.deepstack):
                    features = image.of(image.embedding.deepstack[index])
                    hidden[0, image.rows] += features.to(hidden.device, hidden.dtype)
        return _last_layer(last, hidden, wanted, call)

    def _embed(self, runs: Sequence[Run], images: "Sequence[_ImageRows]") -> torch.Tensor:
        """Every row's input, [1, R, H]: a token's embedding, or an image's in its place."""
        tokens = torch.tensor([[token for run in runs for token in run.tokens]])
        hidden: torch.Tensor = self._text.embed_tokens(tokens.to(self._device))
        for image in images:
            hidden[0, image.rows] = image.of(image.embedding.merged).to(hidden.device, hidden.dtype)
        return hidden


def _last_layer(layer: Any, hidden: torch.Tensor, wanted: Sequence[slice], call: Mapping[str, Any]) -> torch.Tensor:
    """The last layer's output [N, H] for the wanted rows alone.

    The others are there for their keys and values, which attention stores; their feed-forward part, most of the layer,
    is never looked at. (DeepStack features behind this layer would be added to image rows, which are never wanted.)
    What is written out here, two residual blocks, is the layer of every supported family.
    """
    if hasattr(layer, "_hf_hook"):
        # Placed by accelerate, whose hooks sit on the layer as a whole.
        whole = layer(hidden, **call)[0]
        return torch.cat([whole[rows] for rows in wanted]) if wanted else whole[:0]
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **call)
    if not wanted:
        return hidden[0, :0]
    selected = torch.cat([hidden[0, rows] + attended[0, rows] for rows in wanted])[None]
    out: torch.Tensor = selected + layer.mlp(layer.post_attention_layernorm(selected))
    return out[0]


def _wanted(runs: Sequence[Run]) -> list[tuple[Run, slice]]:
    """The runs whose logits are wanted, and of which rows of the step."""
    found: list[tuple[Run, slice]] = []
    row = 0
    for run in runs:
        row += run.num_rows
        if run.logits is not Logits.NONE:
            count = run.num_rows if run.logits is Logits.ALL else 1
            found.append((run, slice(row - count, row)))
    return found


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
