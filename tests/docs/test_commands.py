"""The commands that the documents show are those of the program."""

import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

from lookonce.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMAND = re.compile(r"^(?:\$ )?lookonce [a-z].*?(?=\s{2,}#|$)", flags=re.MULTILINE)
FLAG = re.compile(r"--?[a-z][a-z-]*")


COMMANDS = cast(Any, typer.main.get_command(app)).commands


def flags_of(words: list[str]) -> frozenset[str]:
    """Every spelling of every option of the command that the words begin with, `deploy ray` as well as `ask`."""
    found = COMMANDS[words[0]]
    for word in words[1:]:
        found = getattr(found, "commands", {}).get(word, found)
    return frozenset(name for each in found.params for name in each.opts) | {"--help"}


def commands(page: Path) -> list[str]:
    """The commands of a page's code blocks, continuation lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [found for block in blocks for found in COMMAND.findall(block.replace("\\\n", " "))]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if commands(page)]


def test_the_documents_show_commands() -> None:
    """The commands are found at all."""
    assert len(PAGES) >= 8
    assert sum(len(commands(page)) for page in PAGES) >= 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_flags_exist(page: Path) -> None:
    """A command that a reader copies is one, and takes the flags that the page gives it."""
    for command in commands(page):
        words = command.removeprefix("$ ").split()
        assert words[1] in COMMANDS, command
        flags = {word.partition("=")[0] for word in words if FLAG.fullmatch(word.partition("=")[0])}
        assert flags <= flags_of(words[1:]), command


def test_the_calculator_says_what_the_page_says() -> None:
    """The FAQ shows what `lookonce size` prints."""
    page = (DOCS / "faq.md").read_text(encoding="utf-8")
    found = re.search(r"^```bash\nlookonce (.*?)\n```\n```text\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    told = CliRunner().invoke(app, shlex.split(found[1]))
    assert told.exit_code == 0
    assert told.stdout == found[2]
