"""The entry codec: what goes in comes out, and nothing else does."""

import json
import struct
from dataclasses import replace
from typing import Any

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import (
    ENTRY_FORMAT,
    HEAD_BYTES,
    MAX_TIMES,
    Damage,
    DamagedEntry,
    Entry,
    Tensor,
    VideoTimes,
    check_model,
    decode,
    decode_header,
    encode,
    entry_key,
)
from cache.entry import ALIGNMENT
from tests.cache.sample import FINGERPRINT, IMAGE_ID, KEY, sample_entry, with_first_tensor

SAMPLE = encode(sample_entry())


def read(data: bytes, key: str = KEY, fingerprint: str = FINGERPRINT) -> Entry:
    return decode(data, expected_key=key, expected_fingerprint=fingerprint)


def reason_of(data: bytes) -> Damage:
    with pytest.raises(DamagedEntry) as caught:
        read(data)
    return caught.value.reason


def forge(change: Any) -> bytes:
    """An entry whose header JSON was changed by `change`, with checksums that fit."""
    header_bytes = struct.unpack_from("<I", SAMPLE, 12)[0]
    header = change(json.loads(SAMPLE[48 : 48 + header_bytes]))
    raw = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    start = -(-(48 + header_bytes) // ALIGNMENT) * ALIGNMENT
    body = raw + bytes(-(48 + len(raw)) % ALIGNMENT) + SAMPLE[start:]
    front = struct.pack("<8sIIQ", b"LOOKONCE", ENTRY_FORMAT, len(raw), 48 + len(body))
    before = front + xxhash.xxh3_64(front + raw).digest()
    return before + xxhash.xxh3_128(before + body).digest() + body


def test_an_entry_comes_back_as_it_was() -> None:
    """Decoding the bytes of an entry gives the same fields, shapes and values."""
    entry = sample_entry()
    assert read(encode(entry)) == entry


@given(
    tokens=st.integers(1, 40),
    hidden=st.integers(1, 33),
    deepstack=st.integers(0, 4),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    created=st.integers(0, 2**50),
    seed=st.integers(0, 255),
)
@settings(deadline=None, max_examples=60)
def test_every_entry_comes_back(tokens: int, hidden: int, deepstack: int, dtype: str, created: int, seed: int) -> None:
    """Any shape, dtype and number of tensors survives the round trip, each tensor starting at a multiple of 64."""
    size = tokens * hidden * (4 if dtype == "float32" else 2)
    data = memoryview(bytes((seed + place) % 256 for place in range(size)))
    names = ["embedding"] + [f"deepstack.{layer}" for layer in range(deepstack)]
    entry = replace(
        sample_entry(tokens),
        created=created,
        tensors=tuple(Tensor(name, dtype, (tokens, hidden), data) for name in names),
    )
    stored = encode(entry)
    assert read(stored) == entry
    assert stored.find(data.tobytes(), 48) % ALIGNMENT == 0 or size < 64


def test_decoding_copies_nothing() -> None:
    """The tensors of a decoded entry are views of the bytes they were decoded from."""
    stored = bytearray(SAMPLE)
    entry = read(stored)  # type: ignore[arg-type]
    stored[-1] ^= 1
    assert entry.tensors[-1].data[-1] == stored[-1]
    assert entry.tensors[0].data.readonly


@given(length=st.integers(0, len(SAMPLE) - 1))
@settings(max_examples=80)
def test_every_truncation_is_found(length: int) -> None:
    """A beginning of an entry is never taken for an entry."""
    assert reason_of(SAMPLE[:length]) is Damage.TRUNCATED


def test_bytes_after_the_end_are_found() -> None:
    """An entry with something behind it is damaged."""
    assert reason_of(SAMPLE + b"\0") is Damage.LENGTH


@pytest.mark.parametrize("start", range(16))
def test_every_flipped_byte_is_found(start: int) -> None:
    """Whichever single byte is changed, anywhere in the entry, it is not decoded."""
    for position in range(start, len(SAMPLE), 16):
        changed = bytearray(SAMPLE)
        changed[position] ^= 0x40
        with pytest.raises(DamagedEntry):
            read(bytes(changed))


@given(position=st.integers(0, len(SAMPLE) - 1), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_every_flipped_bit_is_found(position: int, bit: int) -> None:
    """Whichever single bit is changed, the entry is not decoded."""
    changed = bytearray(SAMPLE)
    changed[position] ^= 1 << bit
    with pytest.raises(DamagedEntry):
        read(bytes(changed))


@given(data=st.binary(max_size=4096), framed=st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_are_not_an_entry(data: bytes, framed: bool) -> None:
    """Random bytes, bare or behind a right magic and version, raise DamagedEntry and nothing else."""
    with pytest.raises(DamagedEntry):
        read(SAMPLE[:12] + data if framed else data)


def is_video(value: Any) -> bool:
    """Whether a value is the times of a video of one temporal patch, which a picture can be said to be."""
    return isinstance(value, list) and len(value) == 2 and all(type(each) in (int, float) for each in value)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    field=st.sampled_from(sorted(json.loads(SAMPLE[48 : 48 + struct.unpack_from("<I", SAMPLE, 12)[0]]))),
)
@settings(max_examples=200)
def test_header_fields_of_any_kind_are_refused(value: Any, field: str) -> None:
    """A header field of another type or value, with checksums that fit, raises DamagedEntry or is harmless."""
    harmless = field in ("width", "height", "image_bytes", "created") and type(value) is int
    harmless = harmless or (field == "video" and (value is None or is_video(value)))
    harmless = harmless or (field == "packed" and value == [])
    try:
        read(forge(lambda header: {**header, field: value}))
    except DamagedEntry:
        return
    assert harmless


def test_a_pickle_is_not_an_entry() -> None:
    """A pickle is refused by its first bytes and never loaded. This one would end the process."""
    bomb = b"\x80\x04\x95\x19\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x05_exit\x94\x93\x94K\x01\x85\x94R\x94."
    assert reason_of(bomb + bytes(64)) is Damage.MAGIC


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: {**header, "grid": [1, 2, 14]}, Damage.GRID),
        (lambda header: {**header, "grid": [1, 12, 2]}, None),
        (lambda header: {**header, "grid": [1, 3, 8]}, Damage.GRID),
        (lambda header: {**header, "grid": [True, 2, 12]}, Damage.HEADER),
        (lambda header: {**header, "grid": [1, 2]}, Damage.GRID),
        (lambda header: {**header, "merge_size": 1}, Damage.GRID),
        (lambda header: {**header, "tensors": []}, Damage.HEADER),
        (lambda header: {**header, "tensors": header["tensors"][:2]}, Damage.SHAPE),
        (lambda header: {**header, "tensors": [["embedding", "float32", [6, 4]]] * 3}, Damage.HEADER),
        (lambda header: {**header, "tensors": [["embedding", "int8", [6, 4]]]}, Damage.DTYPE),
        (lambda header: {**header, "tensors": [["embedding", "float16", [6, 2**62]]]}, Damage.HEADER),
        (lambda header: {**header, "extra": 1}, Damage.HEADER),
        (lambda header: [header], Damage.HEADER),
        (lambda _: b"[" * 5000, Damage.HEADER),
        (lambda _: b'{"key": ' + b"1" * 5000 + b"}", Damage.HEADER),
        (lambda _: b"\xff\xfe", Damage.HEADER),
        (lambda header: {**header, "key": "x" * 20_000}, Damage.HEADER),
    ],
)
def test_a_header_that_lies_is_found(change: Any, reason: Damage | None) -> None:
    """A header whose sizes do not fit each other or the bytes is refused even when the checksums are right."""
    if reason is None:
        assert read(forge(change)).grid == (1, 12, 2)
    else:
        assert reason_of(forge(change)) is reason


def test_an_entry_of_another_format_version_is_refused() -> None:
    """An entry of an older or a newer format is not read."""
    for version in (ENTRY_FORMAT - 1, ENTRY_FORMAT + 1):
        assert reason_of(SAMPLE[:8] + struct.pack("<I", version) + SAMPLE[12:]) is Damage.VERSION


def test_a_videos_times_come_back() -> None:
    """The times of a video's temporal patches survive the round trip bit by bit, for as many as one can have."""
    times = VideoTimes(tuple(place / 3 for place in range(MAX_TIMES)), 2 / 3.1)
    entry = replace(sample_entry(tokens=MAX_TIMES), grid=(MAX_TIMES, 2, 2), video=times)
    stored = encode(entry)
    assert read(stored) == entry
    header = decode_header(stored[:HEAD_BYTES], len(stored), expected_key=KEY, expected_fingerprint=FINGERPRINT)
    assert header.video == times


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ([1.0, 0.5, 1.5], Damage.GRID),
        ([1.0], Damage.HEADER),
        ([0, 0.5], Damage.HEADER),
        ([1.0, -0.5], Damage.HEADER),
        ([1.0, float("nan")], Damage.HEADER),
        ([1.0, True], Damage.HEADER),
        ([1.0, "0.5"], Damage.HEADER),
        ({}, Damage.HEADER),
        ([1.0] * (MAX_TIMES + 2), Damage.HEADER),
    ],
)
def test_times_that_cannot_be_are_found(video: Any, reason: Damage) -> None:
    """A video's times that are too few, too many, no numbers or before its beginning are refused."""
    assert reason_of(forge(lambda header: {**header, "video": video})) is reason


def test_only_a_video_has_several_temporal_patches() -> None:
    """A grid with time is refused in an entry that tells no times."""
    entry = replace(sample_entry(tokens=6), grid=(2, 2, 6))
    with pytest.raises(DamagedEntry):
        encode(entry)


def test_another_images_entry_is_refused() -> None:
    """An entry stored under another key than its own is not used."""
    other = entry_key("img_" + "cd" * 20, FINGERPRINT, "public")
    with pytest.raises(DamagedEntry) as caught:
        read(SAMPLE, key=other)
    assert caught.value.reason is Damage.KEY


def test_another_fingerprint_is_refused() -> None:
    """An entry made by other weights is not used."""
    with pytest.raises(DamagedEntry) as caught:
        read(SAMPLE, fingerprint="f" * 32)
    assert caught.value.reason is Damage.FINGERPRINT


def test_the_header_can_be_read_from_the_beginning() -> None:
    """The first HEAD_BYTES bytes tell grid, sizes and tokens without the tensors."""
    stored = encode(sample_entry(tokens=600, hidden=32))
    header = decode_header(stored[:HEAD_BYTES], len(stored), expected_key=KEY, expected_fingerprint=FINGERPRINT)
    assert (header.num_tokens, header.width, header.grid) == (600, 28 * 600, (1, 2, 1200))


@pytest.mark.parametrize("position", [0, 9, 13, 20, 24, 31, 50, 120])
def test_a_damaged_header_is_found_from_the_beginning(position: int) -> None:
    """A changed byte of the header is found without the tensors."""
    changed = bytearray(SAMPLE)
    changed[position] ^= 1
    with pytest.raises(DamagedEntry):
        decode_header(changed[:HEAD_BYTES], len(SAMPLE), expected_key=KEY, expected_fingerprint=FINGERPRINT)


def test_a_truncated_entry_is_found_from_its_beginning() -> None:
    """A stored length that is not the entry's own is found without the tensors."""
    with pytest.raises(DamagedEntry):
        decode_header(SAMPLE[:HEAD_BYTES], len(SAMPLE) - 1, expected_key=KEY, expected_fingerprint=FINGERPRINT)


@pytest.mark.parametrize(
    "entry",
    [
        replace(sample_entry(), grid=(1, 2, 10)),
        replace(sample_entry(), tensors=()),
        with_first_tensor(sample_entry(), dtype="int8"),
        with_first_tensor(sample_entry(), data=memoryview(b"short")),
        with_first_tensor(sample_entry(), name="other"),
        replace(sample_entry(), width=0),
    ],
)
def test_what_could_not_be_read_is_not_written(entry: Entry) -> None:
    """An entry that would not decode is refused when it is encoded."""
    with pytest.raises(DamagedEntry):
        encode(entry)


def test_an_entry_of_another_model_is_refused() -> None:
    """A dtype, width, number of tensors or merge size that the model does not have is named; no dtype is no matter."""
    entry = sample_entry(hidden=4, deepstack=2)
    right = {"dtype": entry.tensors[0].dtype, "hidden_size": 4, "num_deepstack": 2, "merge_size": 2}
    check_model(entry, **right)
    check_model(entry, **{**right, "dtype": None})
    for wrong in ({"dtype": "float32"}, {"hidden_size": 5}, {"num_deepstack": 0}, {"merge_size": 1}):
        with pytest.raises(DamagedEntry):
            check_model(entry, **{**right, **wrong})


def test_the_same_image_of_another_tenant_is_another_key() -> None:
    """A tenant's entry is not found under another tenant's key."""
    with pytest.raises(DamagedEntry):
        read(SAMPLE, key=entry_key(IMAGE_ID, FINGERPRINT, "acme"))
