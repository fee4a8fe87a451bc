"""docs/quick-start.md: its blocks are run as they stand, in their order, against a real server of the demo model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import Deployment, environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8")
SERVER = "http://127.0.0.1:8000"
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
# What a reader must see of each block: the demo model's picture has three objects, one of them a square.
SEEN = (("3", "yes"), ('"text":"3"', '"probability"'), ("3\n1\n",), ("3",), ("finding", "store as seen by"))


def test_every_block_has_something_to_be_seen() -> None:
    """No block is left out, and nothing is expected of a block that is not there."""
    assert len(BLOCKS) == len(SEEN)


@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_the_block_runs_and_shows_what_it_should(place: int, demo: Deployment) -> None:
    """A reader who copies it onto their terminal gets an answer."""
    language, code = BLOCKS[place]
    code = code.replace(SERVER, demo.url)
    if language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", f'lookonce() {{ "{sys.executable}" -m lookonce "$@"; }}\n{code}']
    else:
        command = [sys.executable, "-c", code]
    asked = environment(LOOKONCE_SERVER=demo.url)
    done = subprocess.run(command, capture_output=True, text=True, env=asked, cwd=ROOT, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert [each for each in SEEN[place] if each not in done.stdout] == []
