"""Packed linear layers against torch's own."""

import weakref
from typing import Any

import pytest
import torch
from torch import nn

from kernels import PackedLinear, pack_linears, pack_patch_embedding, packed_linear
from kernels.linear import can_pack


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 32, 300])
@pytest.mark.parametrize("sizes", [(48, 96), (33, 7), (768, 256)])
def test_a_packed_layer_equals_the_plain_one(rows: int, bias: bool, sizes: tuple[int, int]) -> None:
    """For any number of rows and odd sizes too the output is the plain layer's up to float32 rounding."""
    torch.manual_seed(rows)
    linear = nn.Linear(*sizes, bias=bias)
    inputs = torch.randn(1, rows, sizes[0])
    with torch.inference_mode():
        torch.testing.assert_close(
            PackedLinear(linear.weight, linear.bias)(inputs), linear(inputs), atol=1e-5, rtol=1e-5
        )


def test_bfloat16_is_as_exact_as_the_plain_one() -> None:
    """In bfloat16 the packed layer is no further from the float64 product than the plain one's rounding allows."""
    linear = nn.Linear(256, 128).to(torch.bfloat16)
    if not can_pack(linear.weight):
        pytest.skip("this processor has no bfloat16 in oneDNN")
    inputs = torch.randn(40, 256, dtype=torch.bfloat16)
    exact = inputs.double() @ linear.weight.double().T + linear.bias.double()
    with torch.inference_mode():
        packed_error = (PackedLinear(linear.weight, linear.bias)(inputs).double() - exact).abs().max()
        plain_error = (linear(inputs).double() - exact).abs().max()
    assert packed_error <= 2 * plain_error + 1e-3


def test_only_plain_linears_are_replaced() -> None:
    """Every linear below a module is replaced, and nothing else."""
    module = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2)), nn.Embedding(3, 4))
    assert pack_linears(module) == 2
    packed = type(packed_linear(torch.zeros(2, 2)))
    assert isinstance(module[0], packed)
    assert isinstance(module[1][1], packed)
    assert isinstance(module[2], nn.Embedding)
    assert sum(parameter.numel() for parameter in module.parameters()) == 16 + 12


def test_plain_weights_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a layer is packed, those before it have given up their plain weights: never two of them are there twice."""
    module = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16)) for _ in range(8)))
    plain = [weakref.ref(layer[0].weight) for layer in module]  # type: ignore[index]  # Sequential's
    alive: list[int] = []
    packed = type(packed_linear(torch.zeros(2, 2)))
    pack = packed.__init__

    def counting(self: nn.Module, *args: Any) -> None:
        alive.append(sum(each() is not None for each in plain))
        pack(self, *args)

    monkeypatch.setattr(packed, "__init__", counting)
    assert pack_linears(module) == 8
    assert alive[-1] <= 2


def test_what_cannot_be_packed_is_left_alone() -> None:
    """Offloaded weights and dtypes that oneDNN does not take stay as they are."""
    assert pack_linears(nn.Sequential(nn.Linear(4, 8, device="meta"), nn.Linear(8, 2, dtype=torch.float64))) == 0


@pytest.mark.parametrize("bias", [True, False])
def test_a_patch_embedding_equals_its_convolution(bias: bool) -> None:
    """A tower's patch embedding as a packed product gives what its convolution over separate patches gave."""

    class PatchEmbed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Conv3d(3, 32, (2, 4, 4), stride=(2, 4, 4), bias=bias)

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.proj(patches.view(-1, 3, 2, 4, 4)).view(-1, 32)
            return out

    tower = nn.Module()
    tower.patch_embed = PatchEmbed()
    patches = torch.randn(50, 96)
    with torch.inference_mode():
        expected = tower.patch_embed(patches)
        assert pack_patch_embedding(tower)
        torch.testing.assert_close(tower.patch_embed(patches), expected, atol=1e-5, rtol=1e-5)


def test_other_convolutions_are_left_alone() -> None:
    """A tower without a patch embedding of that form is not touched."""
    tower = nn.Module()
    tower.patch_embed = nn.Sequential(nn.Linear(2, 2))
    assert not pack_patch_embedding(tower)
    assert not pack_patch_embedding(nn.Module())
