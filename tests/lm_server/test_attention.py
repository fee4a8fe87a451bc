"""Attention over segments: what a step copies is bounded by what it looks at."""

import pytest
import torch

from tests.lm_server.workshop import Workshop, ask

TOKENS = 6


def test_one_long_tail_does_not_make_the_short_ones_long(
    one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a question far longer than the others, hardly more than the tails themselves is gathered."""
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
