"""The header reader refuses everything that is not a sound safetensors file, with its own error and no other."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from checkpoint.shards import ShardError, chunks, read_header, read_into

RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**70) | st.text(max_size=5) | st.sampled_from(["F32", "BOOL"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "\ud800"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def _file(path: Path, header: Any, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@RELAXED
@given(content=st.binary(max_size=64))
def test_any_bytes_are_refused_or_read(tmp_path: Path, content: bytes) -> None:
    """Noise never raises anything but ShardError."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(ShardError):
        read_header(path)


@RELAXED
@given(header=JSON, data=st.binary(max_size=16))
def test_any_header_is_refused_or_read(tmp_path: Path, header: Any, data: bytes) -> None:
    """Nor does any JSON in the header's place; what is read lies within the file."""
    path = _file(tmp_path / "x.safetensors", header, data)
    try:
        tensors = read_header(path)
    except ShardError:
        return
    assert all(tensor.end <= path.stat().st_size for tensor in tensors)


def test_tensors_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    """Every dtype that is served, a scalar and an empty tensor: same shapes, same bytes, whole or in pieces."""
    path = tmp_path / "x.safetensors"
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    tensors = {str(dtype): torch.randn(3, 5).to(dtype) for dtype in dtypes}
    save_file(tensors | {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4)}, path, metadata={"format": "pt"})
    expected = load_file(path)
    stored = read_header(path)
    assert {tensor.name for tensor in stored} == set(expected)
    for tensor in stored:
        whole = expected[tensor.name]
        buffer = bytearray(tensor.num_bytes)
        read_into(tensor, memoryview(buffer))
        assert tensor.shape == tuple(whole.shape)
        assert tensor.num_values == whole.numel()
        assert bytes(buffer) == whole.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        assert b"".join(bytes(piece) for piece in chunks(tensor, 7)) == bytes(buffer)


def test_a_file_that_shrinks_after_its_header_was_read_is_an_error(tmp_path: Path) -> None:
    """Never a short tensor."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(8)}, path)
    (tensor,) = read_header(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ShardError):
        read_into(tensor, memoryview(bytearray(tensor.num_bytes)))
