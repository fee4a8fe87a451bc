"""What the doctor says of a checkpoint on this host."""

import shutil
from pathlib import Path

import pytest

from checkpoint import identity
from lookonce.doctor.findings import Level
from lookonce.doctor.model import examine_model
from protos import language_pb2, vision_pb2
from rpc.errors import Unavailable
from tests.families import make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen2_vl", tmp_path_factory.mktemp("models") / "tiny", sharded=True)


def test_a_model_that_the_workers_serve_is_ok(model: Path) -> None:
    """The identities of directory and workers agree; silent workers are left out."""
    here = identity(model)
    seen = vision_pb2.VisionInfo(checkpoint=vision_pb2.Checkpoint(config=here.config, vision=here.vision))
    spoken = language_pb2.LanguageInfo(checkpoint_config=here.config, checkpoint_language=here.language)
    findings = list(examine_model(model, {"a:1": seen, "c:1": Unavailable("x")}, {"b:2": spoken}))
    assert [finding.level for finding in findings] == [Level.OK] * 3


def test_a_worker_that_serves_another_model_fails(model: Path) -> None:
    """A worker is named whose weights differ from the directory's."""
    seen = vision_pb2.VisionInfo(checkpoint=vision_pb2.Checkpoint(config=identity(model).config, vision="other"))
    *_, finding = examine_model(model, {"a:1": seen}, {})
    assert (finding.level, finding.message) == (Level.FAIL, "vision a:1 serves another checkpoint")


def test_a_faulty_model_fails_by_name(model: Path, tmp_path: Path) -> None:
    """A shard that is not there is named, and `lookonce inspect` recommended."""
    broken = shutil.copytree(model, tmp_path / "broken")
    shard = sorted(broken.glob("*.safetensors"))[0]
    shard.unlink()
    first, *_ = examine_model(broken, {}, {})
    assert first.level is Level.FAIL
    assert shard.name in first.message
    assert "lookonce inspect" in first.remedy
