"""docs/troubleshooting.md: each fault is made, and what lookonce and transformers make of it is what the page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import checkpoint
from tests.deployment import environment
from tests.docs.classic_faults import FAULTS, LEFT_OUT, RANDOM, SILENT, ClassicFault, make

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### (.*?)\n(.*?)(?=^##|\Z)", flags=re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| \[(.*?)\]\(#.*?\) \| (.*?) \| (.*?) \|$", flags=re.MULTILINE)
UNREADABLE = "There is no tokenizer"


def sections() -> dict[str, str]:
    """What the page says lookonce tells, by the fault's heading."""
    found = {}
    for heading, text in SECTION.findall(PAGE):
        told = re.search(r"^```text\n(.*?)\n```", text, flags=re.MULTILINE | re.DOTALL)
        if told:
            found[heading.replace("`", "").replace("\\", "")] = told[1]
    return found


def told_by(fault: ClassicFault, model_dir: Path) -> str:
    """What loading the fault's half says: the error, or the repairs that were made."""
    load = checkpoint.load_vision if fault.half == "vision" else checkpoint.load_language
    try:
        return "\n".join(load(model_dir).report.repaired)
    except checkpoint.CheckpointError as exc:
        return str(exc)


def elsewhere(model_dir: Path) -> str:
    """What transformers' own loading of the whole model comes to, in the page's words."""
    try:
        _, info = transformers.AutoModelForImageTextToText.from_pretrained(model_dir, output_loading_info=True)
    except Exception as exc:  # noqa: BLE001 - whatever it raises is the answer
        return f"raises {type(exc).__name__}"
    if info["missing_keys"]:
        return RANDOM
    return LEFT_OUT if info["unexpected_keys"] else SILENT


def test_every_fault_has_its_section_and_its_row() -> None:
    """No fault is left out of the page, and the page tells of none that is not made."""
    assert set(sections()) == set(FAULTS)
    assert [fault for fault, _, _ in ROW.findall(PAGE.replace("`", ""))] == list(FAULTS)


@pytest.mark.parametrize("title", [title for title in FAULTS if title != UNREADABLE])
def test_lookonce_says_what_the_page_says(title: str, tmp_path: Path) -> None:
    """The message on the page is the one that loading the half gives, word for word."""
    fault = FAULTS[title]
    assert told_by(fault, make(fault, tmp_path)) == sections()[title]


def test_a_worker_without_a_tokenizer_says_what_the_page_says(tmp_path: Path) -> None:
    """A language worker whose checkpoint has none does not start, and says so."""
    model_dir = make(FAULTS[UNREADABLE], tmp_path)
    addresses = ["--listen", "127.0.0.1:0", "--cache", "memory://", "--vision", "127.0.0.1:9"]
    command = [sys.executable, "-m", "lookonce", "language", "--model", str(model_dir), *addresses]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=100, check=False
    )
    assert done.returncode == 1
    assert sections()[UNREADABLE] in done.stderr


@pytest.mark.parametrize("title", [title for title, fault in FAULTS.items() if fault.elsewhere])
def test_transformers_does_what_the_page_says(title: str, tmp_path: Path) -> None:
    """The table's word for what happens elsewhere is what happens."""
    fault = FAULTS[title]
    said = {name: word for name, word, _ in ROW.findall(PAGE.replace("`", ""))}
    assert elsewhere(make(fault, tmp_path)) == fault.elsewhere
    assert said[title] == fault.elsewhere
