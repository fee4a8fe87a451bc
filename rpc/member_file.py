"""Workers that come and go, as a file: `file:PATH` among addresses stands for those that it lists, one a line.

Whoever knows the workers replaces the file; whoever asks them reads it again and again (see `rpc.names`).
"""

import re
from collections.abc import Sequence
from pathlib import Path

PREFIX = "file:"
ADDRESS = re.compile(r"\S+:\d{1,5}")


def is_file(address: str) -> bool:
    """Whether an address as settings have it stands for those that a file lists."""
    return address.startswith(PREFIX)


def path_of(address: str) -> Path:
    """The path of `file:PATH`."""
    return Path(address.removeprefix(PREFIX))


def read_members(path: Path) -> tuple[str, ...]:
    """The addresses that the file lists.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    words = path.read_text(encoding="utf-8").split()
    if not all(map(ADDRESS.fullmatch, words)):
        raise ValueError(f"{path} does not list addresses, one a line")
    return tuple(words)


def write_members(path: Path, addresses: Sequence[str]) -> None:
    """Replaces the file at once, so that nobody reads half of it."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text("".join(f"{address}\n" for address in addresses), encoding="utf-8")
    beside.replace(path)
