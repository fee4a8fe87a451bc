"""The promises about entries that were damaged in the store: a miss, replaced, never used."""

from collections.abc import Callable, Mapping

import pytest

from protos import vision_pb2
from tests.promises.served import Served
from tests.vision_server.pictures import png

DAMAGE: Mapping[str, Callable[[bytes, bytes], bytes]] = {
    "truncated": lambda entry, other: entry[: len(entry) // 2],
    "empty": lambda entry, other: b"",
    "a flipped bit": lambda entry, other: entry[:-9] + bytes([entry[-9] ^ 1]) + entry[-8:],
    "a flipped bit of its header": lambda entry, other: entry[:12] + bytes([entry[12] ^ 1]) + entry[13:],
    "a pickle": lambda entry, other: b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.",
    "another image's bytes": lambda entry, other: other,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_entry_is_encoded_again(served: Served, name: str) -> None:
    """The image is a miss, and its entry is afterwards what it was."""
    fingerprint = served.deployment.vision_info().fingerprint
    files = [png(seed=seed, width=120, height=90) for seed in (71, 72)]
    ids = [served.vision.Encode(vision_pb2.EncodeRequest(image=data), timeout=60).image_id for data in files]
    keys = [f"lookonce:{{{image_id.removeprefix('img_')}}}:{fingerprint}:public" for image_id in ids]
    entry, other = (served.store.client.get(key) for key in keys)
    assert isinstance(entry, bytes)
    assert isinstance(other, bytes)
    served.store.client.set(keys[0], DAMAGE[name](entry, other))
    fetch = vision_pb2.FetchEmbeddingRequest(image_id=ids[0], fingerprint=fingerprint)
    chunks = list(served.vision.FetchEmbedding(fetch, timeout=60))
    assert chunks[0].encoded
    again = b"".join(chunk.data for chunk in chunks)
    assert len(again) == len(entry)
    assert served.store.client.get(keys[0]) == again
