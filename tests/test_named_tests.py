"""The documents name the test that holds each promise; here it is seen that every one of them exists."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEFINED = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
# `tests/a/test_b.py`, `tests/a/test_b.py::test_c`, and `::test_d` for another one of the file named before it.
NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`")
DOCUMENTS = ("docs/reliability.md", "docs/security.md")


@cache
def names_in(path: Path) -> frozenset[str]:
    """The names of a file's tests."""
    return frozenset(DEFINED.findall(path.read_text(encoding="utf-8")))


def named_in(text: str) -> list[tuple[str, str]]:
    """Every file and test that a text names."""
    found: list[tuple[str, str]] = []
    file = ""
    for path, name in NAMED.findall(text):
        file = path or file
        if path or name:
            found.append((file, name))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_document_names_exists(document: str) -> None:
    """A renamed or deleted test makes its promise an empty one."""
    named = named_in((ROOT / document).read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, name in named:
        path = ROOT / file
        assert path.is_file(), file
        assert not name or name in names_in(path), f"{file}::{name}"
