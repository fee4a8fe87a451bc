"""The engine in process with one thing changed, a class for each option."""

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.options.int8 import Int8Linear
from benchmarks.systems import in_process
from checkpoint import LoadedLanguage, load_language
from lm_server import layers
from lm_server.engine import Engine
from lm_server.settings import LanguageSettings

# Of a sequence in a step, at most.
DRAFT_TOKENS = 8


class Bfloat16Entries(in_process.Worker):
    """The tower's output is rounded to bfloat16 before the language half sees it."""

    def _entry(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(torch.bfloat16)


class Float16Entries(in_process.Worker):
    """The tower's output is rounded to float16 before the language half sees it."""

    def _entry(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(torch.float16)


class Int8Language(in_process.Worker):
    """Every linear layer of the language half has int8 weights, the output layer too.

    The layers of a step are made as the engine makes them, of other linears: this process has no other engine.
    """

    def _load_half(self, model_dir: Path) -> LoadedLanguage:
        # The table stays plain: the output layer's int8 weights cannot give its rows back.
        half = load_language(model_dir, dtype=self._setup.dtype, device=self._setup.device)
        half.model.lm_head = Int8Linear(half.model.lm_head.weight, half.model.lm_head.bias)
        return half

    def _open_engine(self) -> Engine:
        # The module offers this name to nobody, and calls it.
        layers.make_linear = Int8Linear  # type: ignore[attr-defined, assignment]
        engine = super()._open_engine()
        text = self._half.model.model.language_model
        if not any(isinstance(module, Int8Linear) for module in text.layers.modules()):
            raise RuntimeError("the engine did not make its layers of the linears it was given")
        return engine


class Bfloat16Language(in_process.Worker):
    """The language half computes in bfloat16, keys and values with it."""

    def _load_half(self, model_dir: Path) -> LoadedLanguage:
        return load_language(model_dir, dtype="bfloat16", device=self._setup.device)


class Drafts(in_process.Worker):
    """Earlier answers about an image draft the next ones."""

    def _settings(self) -> LanguageSettings:
        return replace(super()._settings(), draft_tokens=DRAFT_TOKENS)
