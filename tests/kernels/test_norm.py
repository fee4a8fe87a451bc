"""The compiled norms against the textbook in float64, and what they are not for."""

import pytest
import torch

from kernels.native import can_norm, rms_norm
from tests.kernels.building import is_built


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    """They are compiled where a compiler and a processor for them are at hand."""
    if not is_built():
        pytest.skip("no compiler here, or a processor that it is not for")


@pytest.mark.parametrize("width", [16, 64, 768, 3584])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 300])
def test_it_is_the_textbook_s(num_rows: int, width: int) -> None:
    """Of few rows and many, also where the rows are a part of wider ones."""
    torch.manual_seed(width)
    wide, weight = torch.randn(num_rows, 2 * width) * 3, torch.randn(width)
    rows = wide[:, width:]
    exact = rows.double() / (rows.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    assert can_norm(rows, weight)
    torch.testing.assert_close(rms_norm(rows, weight, 1e-6).double(), exact, atol=1e-6, rtol=2e-6)


def test_a_row_of_nothing_is_nothing() -> None:
    """Zeros stay zeros: what is divided by is never zero."""
    assert not rms_norm(torch.zeros(3, 32), torch.ones(32), 1e-6).any()


def test_what_it_does_not_take() -> None:
    """Other dtypes, widths that are no whole vectors, heads of rows, values that lie apart, another width."""
    weight = torch.ones(32)
    assert not can_norm(torch.ones(2, 32, dtype=torch.bfloat16), weight)
    assert not can_norm(torch.ones(2, 32), weight.double())
    assert not can_norm(torch.ones(2, 24), torch.ones(24))
    assert not can_norm(torch.ones(2, 4, 32), weight)
    assert not can_norm(torch.ones(32, 2).T, weight)
    assert not can_norm(torch.ones(2, 64), weight)
