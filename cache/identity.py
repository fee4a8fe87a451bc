"""Identity → key: which name an image, its entry and its original bytes have in a store.

The image's hash stands in braces, which Redis Cluster reads as the part to place a key by: an image's entry and its
original bytes are always on one node. A frame group belongs to many videos: its own digest stands there.
"""

import json
import re
from collections.abc import Mapping

from blake3 import blake3

from cache.errors import InvalidIdentity

DEFAULT_TENANT = "public"
_ID_PREFIX = "img_"
_HASH_BYTES = 20
_HASH_CONTEXT = "lookonce 2026 image id"
_GROUP_CONTEXT = "lookonce 2026 frame group"
_IMAGE_ID = re.compile(r"img_[0-9a-f]{40}", re.ASCII)
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{16,128}", re.ASCII)

EntryKey = str


def image_id(image: bytes | bytearray | memoryview, options: Mapping[str, str | int]) -> str:
    """The id of an uploaded file: a 160-bit hash of its bytes and of every option that changes the tensor.

    It is made from the file and never from pixels (30×100 and 100×30 of one colour differ) nor from a field that the
    client writes.
    """
    hasher = blake3(derive_key_context=_HASH_CONTEXT)
    canonical = json.dumps(dict(options), sort_keys=True, separators=(",", ":")).encode()
    hasher.update(len(canonical).to_bytes(8, "little"))
    hasher.update(canonical)
    hasher.update(image)
    return _ID_PREFIX + hasher.digest(length=_HASH_BYTES).hex()


def entry_key(image_id: str, fingerprint: str, tenant: str) -> EntryKey:
    """Key of an image's entry. Raises `InvalidIdentity`."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise InvalidIdentity("fingerprint must be 16 to 128 lower-case hex digits")
    return f"lookonce:{{{_hash_of(image_id)}}}:{fingerprint}:{check_tenant(tenant)}"


def original_key(image_id: str, tenant: str) -> str:
    """Key of an image's uploaded bytes. Raises `InvalidIdentity`."""
    return f"lookonce:{{{_hash_of(image_id)}}}:original:{check_tenant(tenant)}"


def lease_key(image_id: str, fingerprint: str, tenant: str) -> str:
    """Key of the lease of whoever is making an image's entry. Raises `InvalidIdentity`."""
    head, rest = entry_key(image_id, fingerprint, tenant).split("}:", 1)
    return f"{head}}}:lease:{rest}"


def group_key(digest: bytes, fingerprint: str, tenant: str) -> str:
    """Key of the entry of a video's frame group, whose pixels have this digest (20 bytes). Raises `InvalidIdentity`."""
    head, rest = entry_key(_ID_PREFIX + digest.hex(), fingerprint, tenant).split("}:", 1)
    return f"{head}}}:group:{rest}"


def groups_key(image_id: str, fingerprint: str, tenant: str) -> str:
    """Key of the list of a video's frame groups. Raises `InvalidIdentity`."""
    head, rest = entry_key(image_id, fingerprint, tenant).split("}:", 1)
    return f"{head}}}:groups:{rest}"


def group_digest(pixels: memoryview, height: int, width: int) -> bytes:
    """The digest (20 bytes) of what the tower is given of a frame group: its patches, and height and width in them."""
    hasher = blake3(derive_key_context=_GROUP_CONTEXT)
    hasher.update(height.to_bytes(8, "little") + width.to_bytes(8, "little"))
    hasher.update(pixels)
    return bytes(hasher.digest(length=_HASH_BYTES))


def check_tenant(tenant: str) -> str:
    """The tenant's name, "public" for the empty one. Raises `InvalidIdentity`."""
    if not tenant:
        return DEFAULT_TENANT
    if not _TENANT.fullmatch(tenant):
        raise InvalidIdentity("tenant must be 1 to 64 letters, digits, '_', '-', '.' or '@', a letter or digit first")
    return tenant


def check_image_id(image_id: str) -> str:
    """The image id, unchanged. Raises `InvalidIdentity`."""
    if not _IMAGE_ID.fullmatch(image_id):
        raise InvalidIdentity("image id must be 'img_' and 40 lower-case hex digits")
    return image_id


def _hash_of(image_id: str) -> str:
    return check_image_id(image_id).removeprefix(_ID_PREFIX)
