"""Workers that a file lists."""

from pathlib import Path

import pytest

from rpc.member_file import read_members, write_members
from rpc.names import Names


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A file of workers is replaced as a whole, and leaves nothing beside it."""
    path = tmp_path / "vision"
    for addresses in (("a:1", "[::1]:2"), (), ("c:3",)):
        write_members(path, addresses)
        assert read_members(path) == addresses
    assert list(tmp_path.iterdir()) == [path]


async def test_workers_join_and_leave_with_the_file(tmp_path: Path) -> None:
    """The members are those that the file lists, beside those that were given; none needs a certificate of a name."""
    path = tmp_path / "language"
    names = Names(("a:1", f"file:{path}"))
    await names.look_up()
    assert dict(names.addresses) == {"a:1": None}
    assert names.unresolved == (f"file:{path}",)
    write_members(path, ("b:2", "c:3"))
    await names.look_up()
    assert dict(names.addresses) == {"a:1": None, "b:2": None, "c:3": None}
    write_members(path, ("c:3",))
    await names.look_up()
    assert set(names.addresses) == {"a:1", "c:3"}


@pytest.mark.parametrize("content", [b"", b"no address\n", b"\xff\xfe:1\n"])
async def test_a_file_that_tells_nothing_changes_nothing(tmp_path: Path, content: bytes) -> None:
    """Empty, gone or damaged: the workers that were known stay."""
    path = tmp_path / "vision"
    write_members(path, ("a:1",))
    names = Names((f"file:{path}",))
    await names.look_up()
    path.write_bytes(content)
    await names.look_up()
    assert set(names.addresses) == {"a:1"}
    path.unlink()
    await names.look_up()
    assert set(names.addresses) == {"a:1"}
