"""The examples run as they stand, and README speaks of commands and flags that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import deploy, environment
from tests.end_to_end.asking import MAX_TOKENS, png
from tests.families import make
from tests.lm_server.workshop import Workshop, ask

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **more: str) -> str:
    """What a command prints."""
    said = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True, env=environment(**more), cwd=ROOT
    )
    return said.stdout


def test_both_examples_print_the_models_answers(tmp_path: Path) -> None:
    """Each example, run against a server, prints what the whole model answers."""
    model_dir = make("qwen2_vl", tmp_path / "model")
    oracle = Workshop(model_dir)
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(1))
    limit = ["--default-max-tokens", str(MAX_TOKENS)]
    with deploy(model_dir, "memory://", tmp_path, language=limit) as deployment:
        expected = [oracle.expected(ask(text, 1), MAX_TOKENS).text for text in ("What is this?", "Why?")]
        said = run("examples/many_questions.py", str(picture), "What is this?", "Why?", LOOKONCE_SERVER=deployment.url)
        assert all(text in said for text in expected)
        said = run("examples/openai_client.py", str(picture), "Why?", LOOKONCE_SERVER=deployment.url)
        assert said == expected[1] + "\n"


def readme_commands() -> list[str]:
    """The lookonce commands that README shows, continuation lines joined."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    return re.findall(r"^lookonce .*?(?=\s{2,}#|$)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", readme_commands())
def test_readme_commands_exist(command: str) -> None:
    """Every command and every flag of README is known to the command line."""
    words = command.split()
    known = run("-m", "lookonce", words[1], "--help")
    flags = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)]
    assert all(re.search(rf"(?<!\S){re.escape(flag)}\b", known) for flag in flags)


def test_readme_shows_commands() -> None:
    """The commands of README are found at all."""
    assert len(readme_commands()) >= 6
