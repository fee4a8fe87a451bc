"""Attention over segments: what a step copies is bounded by what it looks at."""

import pytest
import torch

from lm_server import attention
from tests.lm_server.workshop import MIXED, Workshop, ask

TOKENS = 6


def test_torch_s_operators_answer_alike(one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing compiled is used, mixed questions get the whole model's tokens."""
    monkeypatch.setattr(attention, "can_attend", lambda *_: False)
    with one_workshop.engine() as bench:
        for case, told in zip(MIXED, bench.ask(MIXED, TOKENS), strict=True):
            told.end()
            assert told.tokens == one_workshop.expected(case, TOKENS).tokens


def test_one_long_tail_does_not_make_the_short_ones_long(
    one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch's operators, beside a question far longer than the others, hardly more than the tails is gathered."""
    monkeypatch.setattr(attention, "can_attend", lambda *_: False)
    long_case = ask("a long tale of dogs and cats " * 60)
    cases = [long_case, *(ask(f"Question {number}?") for number in range(7))]
    gathered: list[int] = []
    with one_workshop.engine() as bench:
        gather = bench.runner.memory.gather

        def watched(layer: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            gathered.append(tokens.numel())
            return gather(layer, tokens)

        monkeypatch.setattr(bench.runner.memory, "gather", watched)
        for case, told in zip(cases, bench.ask(cases, TOKENS), strict=True):
            told.end()
            assert told.tokens == one_workshop.expected(case, TOKENS).tokens
    assert max(len(one_workshop.prompt(case)) for case in cases) > 500
    assert max(gathered) < 1100
