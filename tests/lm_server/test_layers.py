"""Lean layers and transformers' own, on the same questions."""

from pathlib import Path

import pytest
import torch

from lm_server import layers
from lm_server.layers import LeanLayer
from tests.families import FAMILIES
from tests.lm_server.workshop import MIXED, Workshop

TOKENS = 8
LEAN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_layers_are_lean(family: str, family_dirs: dict[str, Path]) -> None:
    """Every layer of a dense model is taken over, and no weight is held twice; mixtures of experts stay as they are."""
    shop = Workshop(family_dirs[family])
    with shop.engine() as bench:
        kinds = {isinstance(layer, LeanLayer) for layer in bench.runner.layers}
        assert kinds == {family in LEAN}
        linears = [module for module in shop.model.model.modules() if isinstance(module, torch.nn.Linear)]
        assert not linears


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fallback_answers_alike(family: str, family_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With transformers' layers in every family the answers are the whole model's too."""
    monkeypatch.setattr(layers, "_is_known", lambda layer: False)
    shop = Workshop(family_dirs[family])
    with shop.engine() as bench:
        assert not any(isinstance(layer, LeanLayer) for layer in bench.runner.layers)
        for case, told in zip(MIXED, bench.ask(MIXED, TOKENS), strict=True):
            told.end()
            assert told.tokens == shop.expected(case, TOKENS).tokens


def test_what_is_not_exactly_known_is_not_taken_over(family_dirs: dict[str, Path]) -> None:
    """A layer with one more module, another activation or a hook keeps transformers' code."""
    known = Workshop(family_dirs["qwen3_vl"]).model.model.language_model.layers
    assert all(layers._is_known(layer) for layer in known)
    known[0].self_attn.gate = torch.nn.Linear(2, 2)
    known[1].mlp.act_fn = torch.nn.GELU()
    known[2]._hf_hook = object()
    assert not any(layers._is_known(layer) for layer in known)


def test_another_engine_may_take_the_model(family_dirs: dict[str, Path]) -> None:
    """A model whose layers are lean already gives the same answers in a second engine."""
    shop = Workshop(family_dirs["qwen2_5_vl"])
    for _ in range(2):
        with shop.engine() as bench:
            [told] = bench.ask(MIXED[:1], TOKENS)
            told.end()
            assert told.tokens == shop.expected(MIXED[0], TOKENS).tokens
