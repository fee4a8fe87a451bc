"""Entries' tensors and torch's."""

import gc
import math
from dataclasses import replace

import pytest
import torch

from cache import Damage, DamagedEntry, decode, encode
from cache.tensors import check_finite, from_torch, to_torch
from tests.cache.sample import FINGERPRINT, KEY, sample_entry


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_come_back_bit_by_bit(dtype: torch.dtype) -> None:
    """A tensor put into an entry and read from its bytes is bitwise the same, without a warning."""
    values = torch.randn(6, 5).to(dtype)
    entry = replace(sample_entry(), tensors=(from_torch("embedding", values),))
    stored = decode(encode(entry), expected_key=KEY, expected_fingerprint=FINGERPRINT)
    assert torch.equal(to_torch(stored.tensors[0]), values)


def test_reading_copies_nothing_and_keeps_the_bytes() -> None:
    """The tensor shares the entry's memory and stays valid when nobody else holds the bytes."""
    values = torch.randn(6, 5)
    stored = bytearray(encode(replace(sample_entry(), tensors=(from_torch("embedding", values),))))
    entry = decode(stored, expected_key=KEY, expected_fingerprint=FINGERPRINT)
    tensor = to_torch(entry.tensors[0])
    stored[-4:] = torch.tensor([7.0]).numpy().tobytes()
    assert tensor[-1, -1] == 7.0
    del stored, entry
    gc.collect()
    assert torch.equal(tensor.flatten()[:-1], values.flatten()[:-1])


def test_a_transposed_tensor_is_stored_row_major() -> None:
    """Values that are not contiguous are stored in the order of their shape."""
    values = torch.arange(30, dtype=torch.float32).reshape(5, 6).T
    assert torch.equal(to_torch(from_torch("embedding", values)), values)


def test_other_dtypes_are_refused() -> None:
    """Only the three dtypes of entries can be stored."""
    with pytest.raises(ValueError, match="float64"):
        from_torch("embedding", torch.zeros(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", [0, 12_345, -1])
def test_values_that_are_not_finite_are_found(value: float, dtype: torch.dtype, place: int) -> None:
    """A NaN or an infinity at any place of any tensor is found by the check that workers make before use."""
    values = torch.full((300, 500), torch.finfo(dtype).min, dtype=dtype)
    sound = replace(sample_entry(), tensors=(from_torch("embedding", values),))
    check_finite(sound)
    values = values.clone()
    values.view(-1)[place] = value
    with pytest.raises(DamagedEntry) as caught:
        check_finite(replace(sound, tensors=(*sound.tensors, from_torch("deepstack.0", values))))
    assert caught.value.reason is Damage.VALUES


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_exactly_what_torch_calls_finite_is_taken(dtype: torch.dtype) -> None:
    """Of all 65,536 bit patterns of a dtype, those that torch calls finite pass the check and the others do not."""
    patterns = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    finite = torch.isfinite(patterns)
    check_finite(replace(sample_entry(), tensors=(from_torch("embedding", patterns[finite].reshape(-1, 1)),)))
    for pattern in patterns[~finite]:
        with pytest.raises(DamagedEntry):
            check_finite(replace(sample_entry(), tensors=(from_torch("embedding", pattern.reshape(1, 1)),)))
