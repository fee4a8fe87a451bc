"""docs/client.md: every block of it is run against a real server of the demo model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import Deployment, environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "client.md"
SERVER = "http://127.0.0.1:8000"


def blocks() -> list[tuple[str, str]]:
    """Each `python` block with what the page says that it prints."""
    return re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_every_block_says_what_it_prints() -> None:
    """No block of the page is left out, and each speaks to the server that the test replaces."""
    assert len(blocks()) == PAGE.read_text().count("```python\n") >= 6
    assert all(SERVER in code for code, _ in blocks())


@pytest.mark.parametrize("place", range(len(blocks())))
def test_the_block_prints_what_the_page_says(place: int, demo: Deployment) -> None:
    """A reader who copies it sees the same."""
    code, told = blocks()[place]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(SERVER, demo.url)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    assert done.stdout == told, done.stderr
