"""Compressed entries: what goes in comes out, smaller, and nothing larger than was agreed."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CODECS, HEAD_BYTES, Damage, DamagedEntry, Entry, Tensor, decode, decode_header, encode
from cache.entry import ALIGNMENT
from cache.tensors import from_torch, to_torch
from lookonce import kinds
from tests.cache.sample import FINGERPRINT, KEY, sample_entry


def like_a_tower(dtype: torch.dtype, tokens: int = 64, hidden: int = 128) -> Entry:
    """An entry of normally distributed values."""
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((tokens, hidden))).to(dtype)
    return replace(sample_entry(tokens), tensors=(from_torch("embedding", values), from_torch("deepstack.0", values)))


SAMPLE = encode(like_a_tower(torch.bfloat16), "zstd")


def read(data: bytes, max_value_bytes: int = 1 << 20) -> Entry:
    return decode(data, expected_key=KEY, expected_fingerprint=FINGERPRINT, max_value_bytes=max_value_bytes)


def reason_of(data: bytes, max_value_bytes: int = 1 << 20) -> Damage:
    with pytest.raises(DamagedEntry) as caught:
        read(data, max_value_bytes)
    return caught.value.reason


def forge(change: Callable[[dict[str, object]], object], frames: list[bytes]) -> bytes:
    """The sample with a changed header and other frames in it, with checksums that fit."""
    header_bytes = struct.unpack_from("<I", SAMPLE, 12)[0]
    header = json.loads(SAMPLE[48 : 48 + header_bytes])
    header["packed"] = [len(frame) for frame in frames]
    change(header)
    body = raw = json.dumps(header, separators=(",", ":")).encode()
    for frame in frames:
        body += bytes(-(48 + len(body)) % ALIGNMENT) + frame
    front = SAMPLE[:12] + struct.pack("<IQ", len(raw), 48 + len(body))
    before = front + xxhash.xxh3_64(front + raw).digest()
    return before + xxhash.xxh3_128(before + body).digest() + body


def unchanged(header: dict[str, object]) -> None:
    """Leaves a header as it is."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_come_back_bit_for_bit_from_fewer_bytes(dtype: torch.dtype) -> None:
    """An entry of a tower's values is smaller when compressed, and its values are the same bits."""
    entry = like_a_tower(dtype)
    stored = encode(entry, "zstd")
    assert len(stored) < 0.95 * len(encode(entry))
    assert read(stored) == entry
    assert to_torch(read(stored).tensors[1]).equal(to_torch(entry.tensors[1]))
    assert read(stored).tensors[0].data.readonly


@given(
    values=st.binary(min_size=4, max_size=400),
    dtype=st.sampled_from([("float32", 4), ("float16", 2), ("bfloat16", 2)]),
    repeats=st.integers(1, 20),
)
@settings(deadline=None, max_examples=60)
def test_any_bytes_come_back(values: bytes, dtype: tuple[str, int], repeats: int) -> None:
    """Whatever the values' bytes are, the entry comes back, and is never larger than one that is not compressed."""
    name, item_bytes = dtype
    data = memoryview(values[: len(values) // item_bytes * item_bytes] * repeats)
    tokens = len(data) // item_bytes
    entry = replace(sample_entry(tokens), tensors=(Tensor("embedding", name, (tokens, 1), data),))
    stored = encode(entry, "zstd")
    assert read(stored) == entry
    assert len(stored) <= len(encode(entry)) + 64


def test_values_that_do_not_get_smaller_are_stored_as_they_are() -> None:
    """An entry of noise says that it is not compressed."""
    noise = memoryview(np.random.default_rng(0).bytes(64 * 128 * 2))
    entry = replace(sample_entry(64), tensors=(Tensor("embedding", "float16", (64, 128), noise),))
    assert encode(entry, "zstd") == encode(entry)


def test_the_header_tells_of_a_compressed_entry() -> None:
    """The first bytes of a compressed entry are enough for its sizes and its codec."""
    header = decode_header(SAMPLE[:HEAD_BYTES], len(SAMPLE), expected_key=KEY, expected_fingerprint=FINGERPRINT)
    assert (header.codec, header.num_tokens, header.value_bytes) == ("zstd", 64, 2 * 64 * 128 * 2)
    assert sum(header.packed) < header.value_bytes


@pytest.mark.parametrize("start", range(8))
def test_every_flipped_byte_is_found_before_it_is_decompressed(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever byte of a compressed entry is changed, it is refused, and no frame is opened."""

    def opened(data: object) -> int:
        raise AssertionError("a frame of a damaged entry was opened")

    monkeypatch.setattr(zstandard, "frame_content_size", opened)
    for position in range(start, len(SAMPLE), 8 * 61):
        changed = bytearray(SAMPLE)
        changed[position] ^= 0x20
        with pytest.raises(DamagedEntry):
            read(bytes(changed))


def test_an_entry_that_would_become_too_large_is_not_decompressed() -> None:
    """What an entry's shapes say is held against the caller's bound, before a frame is opened."""
    assert read(SAMPLE, 2 * 64 * 128 * 2).num_tokens == 64
    assert reason_of(SAMPLE, 2 * 64 * 128 * 2 - 1) is Damage.LENGTH
    plain = encode(like_a_tower(torch.bfloat16))
    assert read(plain, 1).num_tokens == 64


def frame(num_bytes: int, *, states_length: bool = True) -> bytes:
    """A zstd frame of so many zeros."""
    return zstandard.ZstdCompressor(write_content_size=states_length).compress(bytes(num_bytes))


VALUE_BYTES = 64 * 128 * 2


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(frame(VALUE_BYTES + 1), id="longer"),
        pytest.param(frame(VALUE_BYTES - 1), id="shorter"),
        pytest.param(frame(1 << 28), id="bomb"),
        pytest.param(frame(VALUE_BYTES, states_length=False), id="unstated"),
        pytest.param(frame(VALUE_BYTES) + b"more", id="tail"),
        pytest.param(frame(VALUE_BYTES)[:-3], id="cut"),
        pytest.param(b"no frame at all", id="noise"),
        pytest.param(b"\x28\xb5\x2f\xfd\xff\xff", id="front"),
    ],
)
def test_a_frame_of_another_length_is_refused(wrong: bytes) -> None:
    """A frame that is not exactly the values that the header tells of makes the entry a damaged one."""
    right = frame(VALUE_BYTES)
    assert bytes(read(forge(unchanged, [right, right])).tensors[0].data) == bytes(VALUE_BYTES)
    assert reason_of(forge(unchanged, [right, wrong])) is Damage.CODEC


@pytest.mark.parametrize(
    "fields",
    [{"codec": "lz4"}, {"codec": None}, {"codec": "none"}, {"packed": []}, {"packed": [10]}, {"packed": "12"}],
)
def test_a_header_with_another_codec_is_refused(fields: dict[str, object]) -> None:
    """An unknown codec, and lengths that do not belong to the codec or the tensors, make the entry a damaged one."""
    right = frame(VALUE_BYTES)
    assert reason_of(forge(lambda header: header.update(fields), [right, right])) is Damage.CODEC


@pytest.mark.parametrize("packed", [[0, 30], [True, 30], [30, 1 << 40], [30.0, 30]])
def test_lengths_that_cannot_be_are_refused(packed: list[object]) -> None:
    """Lengths of packed tensors are positive whole numbers."""
    right = frame(VALUE_BYTES)
    assert reason_of(forge(lambda header: header.update(packed=packed), [right, right])) is Damage.HEADER


def test_the_command_line_knows_every_codec() -> None:
    """`--entry-compression` takes the codecs that entries have."""
    assert kinds.CODECS == CODECS
