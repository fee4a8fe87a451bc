"""Sampling against transformers' own logits processors."""

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from lm_server.sampler import Sampler, Sampling, penalised, top_k, top_p


@pytest.fixture
def logits() -> torch.Tensor:
    """Fifty logits."""
    return torch.randn(50, generator=torch.Generator().manual_seed(3)) * 4


def test_greedy_takes_the_highest(logits: torch.Tensor) -> None:
    """Temperature 0 takes the highest logit."""
    assert Sampler(Sampling()).choose(logits, [], []) == int(logits.argmax())


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 5e-324])
def test_a_vanishing_temperature_is_greedy(logits: torch.Tensor, temperature: float) -> None:
    """However near to 0 the temperature is, the highest logit is taken and nothing overflows."""
    for sampling in (Sampling(temperature=temperature), Sampling(temperature=temperature, top_p=0.5, top_k=3)):
        assert Sampler(sampling).choose(logits, [], []) == int(logits.argmax())


@pytest.mark.parametrize("k", [1, 5, 49, 50, 100])
def test_top_k_equals_transformers(logits: torch.Tensor, k: int) -> None:
    """The tokens kept by top_k are those transformers keeps."""
    assert torch.equal(top_k(logits, k), TopKLogitsWarper(k)(None, logits[None])[0])


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_top_p_equals_transformers(logits: torch.Tensor, p: float) -> None:
    """The tokens kept by top_p are those transformers keeps."""
    assert torch.equal(top_p(logits, p), TopPLogitsWarper(p)(None, logits[None])[0])


def test_repetition_penalty_equals_transformers(logits: torch.Tensor) -> None:
    """The repetition penalty changes prompt and output tokens as transformers does."""
    ids = [3, 3, 7, 49]
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([ids]), logits[None])[0]
    assert torch.equal(penalised(logits, Sampling(repetition_penalty=1.3), ids[:2], ids[2:]), expected)


def test_presence_and_frequency_count_the_output_alone(logits: torch.Tensor) -> None:
    """OpenAI's two penalties look at generated tokens, once or for each time."""
    changed = penalised(logits, Sampling(presence_penalty=0.5, frequency_penalty=0.25), [1], [2, 2, 4])
    difference = logits - changed
    assert difference[[1, 2, 4]].tolist() == pytest.approx([0.0, 1.0, 0.75])
    assert difference.count_nonzero() == 2


def test_draws_follow_the_probabilities() -> None:
    """Over many draws a token comes as often as its probability says."""
    sampler = Sampler(Sampling(temperature=1.0, seed=1))
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    counts = torch.bincount(torch.tensor([sampler.choose(logits, [], []) for _ in range(4000)]), minlength=3)
    assert (counts / 4000).tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
