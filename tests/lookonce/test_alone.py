"""The three commands of one process each, as real processes, and the doctor's view of them."""

from pathlib import Path

import pytest

from tests.deployment import deploy, redis_server
from tests.families import make
from tests.lookonce.serving import lookonce


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen2_vl", tmp_path_factory.mktemp("models") / "tiny")


def test_a_deployment_of_single_processes_is_examined(model: Path, tmp_path: Path) -> None:
    """A sound deployment passes the doctor; a worker that is gone, or an unlimited store, is told with its remedy."""
    limits = ("--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru", "--proto-max-bulk-len", "256mb")
    with redis_server(tmp_path / "store", "any", *limits) as store, deploy(model, store.url, tmp_path) as deployment:
        vision, language = deployment.vision[0], deployment.language[0]
        everybody = ["--vision", vision.address, "--language", language.address, "--cache", store.url]
        sound = lookonce("doctor", *everybody, "--server", deployment.url, "--model", str(model))
        assert sound.returncode == 0, sound.stdout
        assert "the halves belong together" in sound.stdout
        assert deployment.vision_info().fingerprint in sound.stdout
        assert "warn" not in sound.stdout

        store.client.config_set("maxmemory-policy", "noeviction")
        warned = lookonce("doctor", *everybody)
        assert warned.returncode == 0
        assert "CONFIG SET maxmemory-policy allkeys-lru" in warned.stdout

        assert vision.stop() == 0
        failed = lookonce("doctor", *everybody, "--server", deployment.url)
        assert failed.returncode == 1
        assert f"vision {vision.address}" in failed.stdout
        assert "degraded" in failed.stdout

        assert language.stop() == 0
        assert deployment.gateway.stop() == 0
