"""Runs a step of the scheduler on the language half: rows in, logits out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from kernels import ALONE, Alone, Turns, pack_linears
from kernels.rotary import rotation
from lm_server.adapters import HEAD, Shape
from lm_server.attention import NAME, StepAttention, order_runs
from lm_server.kv import KvMemory
from lm_server.layers import StepInputs, Wanted, make_layers
from lm_server.lora import Linear, StepAdapters
from lm_server.steps import Logits, Run
from lm_server.tied import embedded_dtype, hold_table_once, input_device


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


@dataclass(frozen=True, slots=True)
class NextTokens:
    """What comes next after some rows of a run.

    Attributes:
        logits: Float32 [R, V].
        best: Of each row the token of the highest logit, the lowest id among equals.
    """

    logits: torch.Tensor
    best: tuple[int, ...]


class ModelRunner:
    """The language half with its key/value memory. Owned by one thread.

    `model` is a Qwen-VL ForConditionalGeneration without its vision tower; its linear layers are packed where that can
    be done. `kv_bytes` bounds the key/value memory. `threads` is what torch may use in the thread that calls `run`;
    None leaves it as it is there. `turns` are taken for every step.

    Attributes:
        linears: The linear layers that adapters can change; none where accelerate placed the layers.
    """

    def __init__(self, model: Any, kv_bytes: int, threads: int | None = None, turns: Turns | Alone = ALONE) -> None:
        self._threads = threads
        self._turns = turns
        self._text = model.model.language_model
        self._adapters = StepAdapters()
        self._head = Linear(HEAD, Shape(model.lm_head.out_features, model.lm_head.in_features))
        is_hooked = any(hasattr(module, "_hf_hook") for module in model.modules())
        self.layers = make_layers(self._text, self._adapters)
        own = tuple(linear for layer in self.layers for linear in layer.linears)
        self.linears: tuple[Linear, ...] = () if is_hooked else (*own, self._head)
        hold_table_once(model)
        pack_linears(model)
        self._lm_head = model.lm_head
        config = self._text.config
        config._attn_implementation = NAME
        self._device = input_device(self._text.embed_tokens)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        values_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim
        self.kv_bytes_per_token: int = values_per_token * embedded_dtype(self._text.embed_tokens).itemsize
        self.kv_tokens = kv_bytes // self.kv_bytes_per_token
        self.memory = KvMemory(config.num_hidden_layers, self.kv_tokens)

    @torch.inference_mode()
    def run(self, runs: Sequence[Run]) -> Mapping[int, NextTokens]:
        """Computes the runs' rows, keeps their keys and values, and returns what was wanted of them.

        Returns:
            By the run's place in `runs`: of its last row and those drafted behind it or, for a scored choice, of all.
        """
        if self._threads is not None:
            torch.set_num_threads(self._threads)
            self._threads = None
        with self._turns.taken():
            return self._compute(runs)

    def _compute(self, runs: Sequence[Run]) -> Mapping[int, NextTokens]:
        ordered = order_runs(runs)
        self.memory.place(run.block for run in ordered)
        wanted = _wanted(ordered)
        hidden = self._through_layers(ordered, wanted)
        if not wanted:
            return {}
        rows = self._text.norm(hidden)
        product = self._lm_head(rows)
        self._adapters.add(product, rows, (self._head,))
        logits = product.float().cpu()
        # numpy looks for the highest several times as fast as torch.
        best = logits.numpy().argmax(-1).tolist()
        places = {id(run): index for index, run in enumerate(runs)}
        found: dict[int, NextTokens] = {}
        start = 0
        for run, rows in wanted:
            end = start + rows.stop - rows.start
            found[places[id(run)]] = NextTokens(logits[start:end], tuple(best[start:end]))
            start = end
        return found

    def _through_layers(self, runs: Sequence[Run], wanted: Sequence[tuple[Run, slice]]) -> torch.Tensor:
        """What the last layer makes of the wanted rows, [N, H].

        The other rows are there for their keys and values, which attention stores; what the last layer makes of them
        beyond that is never looked at.
        """
        images = _image_rows(runs)
        hidden = self._embed(runs, images)
        inputs = self._inputs(runs, hidden)
        self._adapters.begin(runs, hidden.device)
        *layers, last = self.layers
        for index, layer in enumerate(layers):
            hidden = layer.feed(layer.attend(hidden, inputs))
            for image in images:
                if index < len(image.embedding.deepstack):
                    features = image.of(image.embedding.deepstack[index])
                    hidden[image.rows] += features.to(hidden.device, hidden.dtype)
        # (DeepStack features behind this layer would be added to image rows, which are never wanted.)
        return last.feed(last.attend(hidden, inputs, self._only(runs, wanted)))

    def _only(self, runs: Sequence[Run], wanted: Sequence[tuple[Run, slice]]) -> Wanted | None:
        """The wanted rows for the last layer; None where they are all."""
        rows = [slices for _, slices in wanted]
        counts = [each.stop - each.start for each in rows]
        if sum(counts) == sum(run.num_rows for run in runs):
            return None
        ends = [
            replace(run, start=run.end - count, tokens=run.tokens[-count:])
            for (run, _), count in zip(wanted, counts, strict=True)
        ]
        return Wanted(rows, StepAttention(runs, self.memory, ends))

    def _inputs(self, runs: Sequence[Run], hidden: torch.Tensor) -> StepInputs:
        positions = torch.from_numpy(np.concatenate([run.positions for run in runs], axis=1))[:, None]
        # In float32 whatever the model's dtype, for lean layers.
        cos, sin = self._text.rotary_emb(hidden[:1].float(), positions.to(hidden.device))
        cos_sin = cos.to(hidden.dtype), sin.to(hidden.dtype)
        return StepInputs(StepAttention(runs, self.memory), rotation(cos[0], sin[0]), cos_sin)

    def _embed(self, runs: Sequence[Run], images: "Sequence[_ImageRows]") -> torch.Tensor:
        """Every row's input, [R, H]: a token's embedding, or an image's in its place."""
        tokens = torch.tensor([token for run in runs for token in run.tokens])
        hidden: torch.Tensor = self._text.embed_tokens(tokens.to(self._device))
        for image in images:
            hidden[image.rows] = image.of(image.embedding.merged).to(hidden.device, hidden.dtype)
        return hidden


def _wanted(runs: Sequence[Run]) -> list[tuple[Run, slice]]:
    """The runs whose logits are wanted, and of which rows of the step."""
    found: list[tuple[Run, slice]] = []
    row = 0
    for run in runs:
        row += run.num_rows
        if run.logits is not Logits.NONE:
            count = run.num_rows if run.logits is Logits.ALL else 1 + run.num_drafted
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
            found.append(_ImageRows(embedding, place, span.offset + start - span.start, end - start))
        row += run.num_rows
    return found
