"""`lookonce inspect` on sound and faulty checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lookonce.cli import app
from tests.families import make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen2_vl", tmp_path_factory.mktemp("models") / "tiny", sharded=True)


def inspect(*arguments: str) -> tuple[int, str]:
    """Exit status and output of `lookonce inspect`."""
    result = CliRunner().invoke(app, ["inspect", *arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.output


def test_both_halves_are_shown(model: Path) -> None:
    """Each half has its tensors, parameters, bytes and shards; a sound checkpoint ends with 0."""
    code, output = inspect(str(model))
    assert code == 0
    assert "vision" in output
    assert "language" in output
    assert "model-00001-of-00004.safetensors" in output
    assert "no faults" in output


def test_every_fault_is_named(model: Path, tmp_path: Path) -> None:
    """Two shards that are gone are two names, and the status is 1."""
    broken = shutil.copytree(model, tmp_path / "broken")
    gone = sorted(broken.glob("*.safetensors"))[::3]
    for shard in gone:
        shard.unlink()
    code, output = inspect(str(broken))
    assert code == 1
    assert all(shard.name in output for shard in gone)
    assert "fault" in output


def test_json_is_for_machines(model: Path, tmp_path: Path) -> None:
    """--json prints one object, with faults as objects."""
    code, output = inspect(str(model), "--json")
    assert code == 0
    assert json.loads(output)["halves"]["vision"]["tensors"] > 0
    code, output = inspect(str(tmp_path), "--json")
    assert code == 1
    assert json.loads(output)["faults"][0]["name"] == "config.json"


def test_a_directory_that_is_none_is_a_wrong_command_line(tmp_path: Path) -> None:
    """The path is named."""
    code, output = inspect(str(tmp_path / "gone"))
    assert code == 2
    assert "gone" in output
