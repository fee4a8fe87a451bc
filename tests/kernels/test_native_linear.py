"""The compiled linear layers against the textbook in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kernels import NativeLinear, packed_linear, packed_table
from kernels.linear import GELU_TANH, NONE, SILU, Activation
from kernels.native import linear as native
from tests.kernels.building import is_built

_EXACT: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    NONE: lambda rows: rows,
    SILU: F.silu,
    GELU_TANH: lambda rows: F.gelu(rows, approximate="tanh"),
}


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    """It is compiled where a compiler and a processor for it are at hand."""
    if not is_built():
        pytest.skip("no compiler here, or a processor that it is not for")


def _close(found: torch.Tensor, expected: torch.Tensor, inputs: int = 64) -> None:
    torch.testing.assert_close(found.double(), expected, atol=2e-6 + 5e-9 * inputs, rtol=2e-6)


@pytest.mark.parametrize("activation", [NONE, SILU, GELU_TANH])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (33, 7), (1, 1), (770, 81), (2, 128)])
def test_it_is_the_textbook_s(inputs: int, outputs: int, activation: Activation) -> None:
    """From 1 to 70 rows, for odd sizes too, every value is float64's, activated, plus a residual or times a factor."""
    torch.manual_seed(inputs)
    weight, bias = torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs)
    layer = NativeLinear(weight, bias, activation)
    for num_rows in range(1, 71):
        rows, other = torch.randn(num_rows, inputs), torch.randn(num_rows, outputs)
        exact = rows.double() @ weight.double().T + bias.double()
        _close(layer(rows), _EXACT[activation](exact), inputs)
        _close(layer.plus(rows, other), exact + other, inputs)
        _close(layer.times(rows, other), exact * other, inputs)


@pytest.mark.parametrize(("num_rows", "inputs", "outputs"), [(300, 3100, 50), (129, 768, 2050), (1000, 8, 24)])
def test_many_rows(num_rows: int, inputs: int, outputs: int) -> None:
    """Rows and inputs in several parts and blocks, and no bias."""
    torch.manual_seed(num_rows)
    weight, rows = torch.randn(outputs, inputs) / inputs**0.5, torch.randn(num_rows, inputs)
    _close(NativeLinear(weight, None)(rows), rows.double() @ weight.double().T, inputs)


def test_a_row_is_the_same_in_any_company() -> None:
    """Bit for bit: its sums go the same way however many rows there are, and wherever it stands among them."""
    torch.manual_seed(0)
    layer, rows = NativeLinear(torch.randn(100, 500), torch.randn(100), SILU), torch.randn(200, 500)
    found = layer(rows)
    for first, end in ((0, 1), (7, 9), (50, 55), (60, 99), (3, 200)):
        assert torch.equal(layer(rows[first:end]), found[first:end])


def test_activations_of_what_is_large() -> None:
    """Values that an exponential cannot take are zero or themselves, and what is not a number stays so."""
    layers = [NativeLinear(torch.ones(1, 1), None, activation) for activation in (SILU, GELU_TANH)]
    rows = torch.tensor([[1000.0], [-1000.0], [0.0], [-30.0]])
    for layer, activation in zip(layers, (SILU, GELU_TANH), strict=True):
        _close(layer(rows), _EXACT[activation](rows.double()))
        assert layer(torch.tensor([[torch.nan]])).isnan().all()


def test_rows_of_any_form() -> None:
    """Strided, turned and nested rows, and none at all."""
    torch.manual_seed(0)
    linear = nn.Linear(40, 24)
    layer = NativeLinear(linear.weight, linear.bias)
    wide, turned, nested = torch.randn(9, 90)[:, 3:43], torch.randn(40, 9).T, torch.randn(2, 3, 5, 40)
    residual = torch.randn(9, 60)[:, 5:29]
    with torch.inference_mode():
        for rows in (wide, turned, nested, nested.transpose(0, 2), wide[0], wide[:0], nested[:, :0]):
            torch.testing.assert_close(layer(rows), linear(rows), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.plus(turned, residual), linear(turned) + residual, atol=1e-5, rtol=1e-5)


def test_other_shapes_and_dtypes_are_refused() -> None:
    """What would be read beyond its end is an error instead."""
    layer, rows = NativeLinear(torch.randn(8, 16), None), torch.randn(3, 16)
    for wrong in (rows[:, :15], rows.double(), rows.to("meta"), torch.randn(())):
        with pytest.raises(ValueError, match="is not float32"):
            layer(wrong)
    with pytest.raises(ValueError, match=r"\[2, 8\] on cpu is not float32 \[3, 8\]"):
        layer.plus(rows, torch.randn(2, 8))


def test_it_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """On processors where that was measured, for float32 on the CPU."""
    weight = torch.randn(4, 4)
    monkeypatch.setattr(native, "FASTER_ON", {torch.backends.cpu.get_cpu_capability()})
    assert isinstance(packed_linear(weight), NativeLinear)
    assert not isinstance(packed_linear(weight.bfloat16()), NativeLinear)
    assert packed_linear(weight.to("meta")) is None
    monkeypatch.setattr(native, "FASTER_ON", frozenset())
    assert not isinstance(packed_linear(weight), NativeLinear)


@pytest.mark.parametrize("shape", [(1024, 256), (1000, 65), (5, 7)])
def test_a_table_s_rows_are_the_weights_bit_for_bit(shape: tuple[int, int]) -> None:
    """Gathered out of panels, whole and padded; another weight's rows are refused."""
    weight = torch.randn(shape)
    layer = NativeLinear(weight, None)
    table = packed_table(layer, weight)
    assert table is not None
    tokens = torch.randint(0, len(weight), (300,))
    assert torch.equal(table(tokens), weight[tokens])
    other = weight.clone()
    other[-1, -1] += 1
    assert packed_table(layer, other) is None
