"""Entries that the tests make."""

from dataclasses import replace

from cache import Entry, Tensor, entry_key

FINGERPRINT = "0123456789abcdef" * 2
IMAGE_ID = "img_" + "ab" * 20
KEY = entry_key(IMAGE_ID, FINGERPRINT, "public")


def sample_entry(tokens: int = 6, hidden: int = 4, deepstack: int = 2, fill: int = 1) -> Entry:
    """A sound float16 entry of `tokens` tokens (one row of merged patches)."""
    data = memoryview(bytes((fill + position) % 251 for position in range(tokens * hidden * 2)))
    names = ["embedding"] + [f"deepstack.{layer}" for layer in range(deepstack)]
    tensors = tuple(Tensor(name, "float16", (tokens, hidden), data) for name in names)
    return Entry(
        key=KEY,
        fingerprint=FINGERPRINT,
        grid=(1, 2, 2 * tokens),
        width=28 * tokens,
        height=28,
        image_bytes=1234,
        created=1_800_000_000,
        tensors=tensors,
    )


def with_first_tensor(entry: Entry, **changes: object) -> Entry:
    """The entry with its first tensor changed."""
    first = replace(entry.tensors[0], **changes)  # type: ignore[arg-type]
    return replace(entry, tensors=(first, *entry.tensors[1:]))
