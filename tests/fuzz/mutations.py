"""Sound bytes and sound JSON, damaged by chance. Pure: the same chance gives the same damage."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

# What lengths, sizes and offsets are set to.
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MOST_CHANGES = 4
MOST_ADDED = 64


def damaged(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The bytes after a few changes; `others` lend parts of themselves."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        chance.choice(_CHANGES)(chance, changed, others)
    return bytes(changed)


def _place(chance: random.Random, data: bytearray) -> int:
    # Headers are where most is decided.
    return chance.randrange(min(len(data), 64) if chance.random() < 0.5 else len(data)) if data else 0


def _flip(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[_place(chance, data)] ^= 1 << chance.randrange(8)


def _cut(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_place(chance, data) :]


def _remove(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(chance, data)
    del data[start : start + chance.randint(1, MOST_ADDED)]


def _repeat(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(chance, data)
    data[start:start] = data[start : start + chance.randint(1, MOST_ADDED)]


def _insert(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = _place(chance, data)
    data[start:start] = chance.randbytes(chance.randint(1, MOST_ADDED))


def _set_number(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    width = chance.choice((1, 2, 4))
    value = chance.choice(NUMBERS) & ((1 << 8 * width) - 1)
    start = _place(chance, data)
    data[start : start + width] = value.to_bytes(width, chance.choice(("big", "little")))


def _splice(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = chance.choice(others)
    start = chance.randrange(max(len(other), 1))
    data[_place(chance, data) :] = other[start:]


def _append(chance: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    data += chance.choice(others)


Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]
_CHANGES: Sequence[Change] = (_flip, _flip, _flip, _cut, _remove, _repeat, _insert, _set_number, _splice, _append)


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    10**400,
    -(10**30),
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 10_000,
    "\0",
    "\ud800",
    "../../etc/passwd",
    "<|image_pad|>",
    "data:image/png;base64,AAAA",
    "image:img_",
    "http://127.0.0.1/",
    [],
    {},
    [None],
    {"": ""},
    nested(300),
    ["x"] * 2000,
)


def damaged_json(chance: random.Random, value: Any) -> bytes:
    """A JSON text of the value with hostile parts; now and then damaged as text, too."""
    changed = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        changed = _replaced(chance, changed)
    text = json.dumps(changed).encode("utf-8", "surrogatepass")
    return damaged(chance, text, [text]) if chance.random() < 0.15 else text


def _replaced(chance: random.Random, value: Any) -> Any:
    """The value with one hostile part: itself, a field more or less, or a part of a part."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        kind = chance.random()
        if kind < 0.1:
            return {name: part for name, part in value.items() if name != key}
        if kind < 0.2:
            return {**value, chance.choice(("extra", "", "\0", key + "s", "image_embeds")): chance.choice(HOSTILE)}
        return {**value, key: _replaced(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        if chance.random() < 0.15:
            return value * chance.choice((0, 2, 300))
        return [_replaced(chance, part) if place == index else part for index, part in enumerate(value)]
    return chance.choice(HOSTILE)
