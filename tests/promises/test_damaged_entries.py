"""The promises about entries that were damaged in the store: a miss, counted, replaced, never used."""

import dataclasses
import io
import json
import math
import struct
from collections.abc import Callable, Mapping

import pytest
import xxhash
from PIL import Image

from cache.entry import Entry, Tensor, decode, encode
from protos import vision_pb2
from tests.promises.served import Served
from tests.vision_server.pictures import picture

# Reading an entry, what is put in its place: from the entry's and another image's bytes.
Damage = Callable[[bytes, bytes, "Reader"], bytes]
Reader = Callable[[bytes], Entry]


def rewritten(change: Callable[[Entry], Entry]) -> Damage:
    """An entry that is whole, with a right checksum, and wrong in one thing."""
    return lambda entry, other, read: encode(change(read(entry)))


def with_values(entry: Entry, tensor: Tensor) -> Entry:
    return dataclasses.replace(entry, tensors=(tensor, *entry.tensors[1:]))


def as_bfloat16(entry: Entry) -> Entry:
    """The upper halves of its values, as they are stored in bfloat16."""
    tensor = entry.tensors[0]
    halves = b"".join(bytes(tensor.data[place + 2 : place + 4]) for place in range(0, len(tensor.data), 4))
    return with_values(entry, dataclasses.replace(tensor, dtype="bfloat16", data=memoryview(halves)))


def narrower(entry: Entry) -> Entry:
    """Twice as many grid rows of half the width: as many tokens of another hidden size."""
    tensor = entry.tensors[0]
    tokens, hidden = tensor.shape
    half = memoryview(bytes(tensor.data[: len(tensor.data) // 2]))
    return with_values(entry, dataclasses.replace(tensor, shape=(tokens, hidden // 2), data=half))


def resealed(entry: bytes) -> bytes:
    """With the checksums that its bytes should have: over its front and header, and over everything."""
    (length,) = struct.unpack_from("<I", entry, 12)
    front, rest = entry[:24], entry[48:]
    header_sum = xxhash.xxh3_64(front + rest[:length]).digest()
    return front + header_sum + xxhash.xxh3_128(front + header_sum + rest).digest() + rest


def with_other_grid(entry: bytes, other: bytes, read: Reader) -> bytes:
    """A grid that its tensors do not fit, under right checksums."""
    grid = json.dumps(list(read(entry).grid), separators=(",", ":")).encode()
    assert grid in entry
    return resealed(entry.replace(grid, grid.replace(b"1,", b"2,", 1), 1))


def not_finite(entry: Entry) -> Entry:
    tensor = entry.tensors[0]
    return with_values(
        entry, dataclasses.replace(tensor, data=memoryview(struct.pack("<f", math.nan) + bytes(tensor.data[4:])))
    )


DAMAGE: Mapping[str, Damage] = {
    "truncated": lambda entry, other, read: entry[: len(entry) // 2],
    "empty": lambda entry, other, read: b"",
    "a flipped bit": lambda entry, other, read: entry[:-9] + bytes([entry[-9] ^ 1]) + entry[-8:],
    "a flipped bit of its header": lambda entry, other, read: entry[:12] + bytes([entry[12] ^ 1]) + entry[13:],
    "a pickle": lambda entry, other, read: b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.",
    "another image's bytes": lambda entry, other, read: other,
    "another fingerprint": rewritten(lambda entry: dataclasses.replace(entry, fingerprint="0" * 32)),
    "another width": rewritten(narrower),
    "another dtype": rewritten(as_bfloat16),
    "another grid": with_other_grid,
    "NaN": rewritten(not_finite),
}


def files(seed: int) -> list[bytes]:
    """One picture as two files, which are two images with equal embeddings, and another picture."""
    found = []
    for level, each in ((9, seed), (1, seed), (9, seed + 1)):
        buffer = io.BytesIO()
        image: Image.Image = picture(120, 90, each)
        image.save(buffer, "PNG", compress_level=level)
        found.append(buffer.getvalue())
    return found


class Shelf:
    """An entry of a new image in the store, its twin, and what damages it."""

    def __init__(self, served: Served, seed: int) -> None:
        self._served = served
        ids = [served.vision.Encode(vision_pb2.EncodeRequest(image=data), timeout=60).image_id for data in files(seed)]
        self.image_id, self.twin_id = ids[:2]
        self.key = served.key(self.image_id)
        self.entry, self.other = self._get(self.key), self._get(served.key(ids[2]))

    def _get(self, key: str) -> bytes:
        value = self._served.store.client.get(key)
        assert isinstance(value, bytes)
        return value

    def stored(self) -> bytes:
        """What is under the entry's key now."""
        return self._get(self.key)

    def damage(self, name: str) -> None:
        """Puts something else in the entry's place."""
        fingerprint = self._served.deployment.vision_info().fingerprint

        def read(data: bytes) -> Entry:
            return decode(data, expected_key=self.key, expected_fingerprint=fingerprint)

        bad = DAMAGE[name](self.entry, self.other, read)
        assert bad != self.entry
        self._served.store.client.set(self.key, bad)


NAMES = tuple(DAMAGE)


@pytest.mark.parametrize("name", NAMES)
def test_the_vision_worker_encodes_a_damaged_entry_again(served: Served, name: str) -> None:
    """It is a miss, it is counted, and the entry is afterwards what it was."""
    shelf = Shelf(served, 71 + 4 * NAMES.index(name))
    shelf.damage(name)
    before = counted(served, "vision")
    fetch = vision_pb2.FetchEmbeddingRequest(
        image_id=shelf.image_id, fingerprint=served.deployment.vision_info().fingerprint
    )
    chunks = list(served.vision.FetchEmbedding(fetch, timeout=60))
    assert chunks[0].encoded
    assert len(b"".join(chunk.data for chunk in chunks)) == len(shelf.entry)
    assert shelf.stored() == b"".join(chunk.data for chunk in chunks)
    assert counted(served, "vision") == before + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_language_worker_uses_no_damaged_entry(served: Served, name: str) -> None:
    """A question about the image is answered as one about its undamaged twin, and the damage is counted."""
    shelf = Shelf(served, 1071 + 4 * NAMES.index(name))
    shelf.damage(name)
    before = counted(served, "language")
    texts = []
    for image_id in (shelf.image_id, shelf.twin_id):
        response = served.chat(f"image:{image_id}", max_tokens=8)
        assert response.status_code == 200, response.text
        texts.append(response.json()["choices"][0]["message"]["content"])
    assert texts[0] == texts[1]
    assert counted(served, "language") == before + 1
    assert len(shelf.stored()) == len(shelf.entry)


def counted(served: Served, half: str) -> float:
    """Damaged entries that a half has met."""
    if half == "vision":
        counters, name = served.deployment.vision_info().counters, "lookonce_entries_damaged"
    else:
        counters, name = served.deployment.language_info().counters, "lookonce_entries_refused"
    return sum(value for counter, value in counters.items() if counter.startswith(name))
