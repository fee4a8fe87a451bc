"""Rates are those of the fastest known way, and every way computes the same."""

import time

import pytest
import torch

from benchmarks import rates
from benchmarks.counting import Attention, Linear, Reading
from benchmarks.rates import ATTENTION_WAYS, Rates


@pytest.fixture
def one_thread() -> Rates:
    return Rates(1)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("group", [1, 6])
def test_every_way_of_attention_computes_the_same(group: int, is_causal: bool) -> None:
    """Else a fast wrong way would pass for this machine's limit."""
    queries, (keys, values) = torch.randn(6, 96, 32), torch.randn(2, 6 // group, 96, 32)
    found = []
    for way in ATTENTION_WAYS.values():
        out = way(queries, keys, values, is_causal)
        out = out[0] if isinstance(out, tuple) else out
        assert isinstance(out, torch.Tensor)
        found.append(out.reshape(queries.shape))
    assert all(torch.allclose(found[0], other, atol=1e-5) for other in found[1:])


def test_the_fastest_way_counts(one_thread: Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two ways the slower is only told in the table."""
    ways = {"slow": lambda *_: time.sleep(0.05), "fast": lambda *_: time.sleep(0.001)}
    monkeypatch.setattr(rates, "ATTENTION_WAYS", ways)
    seconds = one_thread.seconds(Attention(8, 8, 1, 4, count=10))
    assert 0.01 <= seconds < 0.5
    names = [name.rpartition(", ")[2] for name in one_thread.table]
    assert names == ["slow", "fast"]


def test_each_shape_is_measured_once(one_thread: Rates) -> None:
    """More of the same take as many times as long; rows beyond the most go at the same rate."""
    one = one_thread.seconds(Linear(4, 64, 32))
    assert one_thread.seconds(Linear(4, 64, 32, count=7)) == pytest.approx(7 * one)
    most = one_thread.seconds(Linear(rates.MOST_ROWS, 8, 8))
    assert one_thread.seconds(Linear(2 * rates.MOST_ROWS, 8, 8)) == pytest.approx(2 * most)


def test_reading_takes_bytes_over_bandwidth(one_thread: Rates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory's rate is one for all sizes."""
    monkeypatch.setattr(rates, "BANDWIDTH_BYTES", 1 << 20)
    assert one_thread.seconds(Reading(2000)) == pytest.approx(2 * one_thread.seconds(Reading(1000)))
    assert one_thread.table["memory GB/s"] > 0


def test_other_dtypes_are_measured_too() -> None:
    """A model in bfloat16 is held against products in bfloat16."""
    assert Rates(1, dtype=torch.bfloat16).seconds(Linear(2, 16, 16)) > 0
