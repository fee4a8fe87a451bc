"""Deployments whose language worker is vLLM's, in the environment that `make bench-vllm` creates."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from protos import language_pb2_grpc
from tests.deployment import Deployment, deploy, redis_server
from tests.end_to_end.conftest import Served
from tests.families import FAMILIES, make
from tests.lm_server.workshop import Workshop

VLLM_PYTHON = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin" / "python"
# vLLM imports itself three times, once in each of its processes.
START_S = 600.0
FLAGS = ("--engine", "vllm", "--threads", "1", "--kv-bytes", "64MiB")


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python that has vLLM, where these tests are asked for; elsewhere they are skipped, for they take minutes."""
    if "LOOKONCE_TEST_VLLM" not in os.environ:
        pytest.skip("vLLM is tested by `make test-vllm` alone")
    if not VLLM_PYTHON.exists():
        pytest.fail("vLLM is not installed in .venv-vllm: `make bench-vllm` does that")
    return VLLM_PYTHON


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, vllm_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Each family, its language worker given nothing but the language half's shards."""
    root = tmp_path_factory.mktemp(request.param)
    model_dir = make(request.param, root / "model", sharded=True, wide_heads=True)
    language_dir = shutil.copytree(model_dir, root / "language" / "model")
    for shard in ("model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"):
        (language_dir / shard).unlink()
    with (
        redis_server(root / "store") as store,
        deploy(
            model_dir,
            store.url,
            root,
            language=FLAGS,
            language_model=language_dir,
            language_python=vllm_python,
            start_s=START_S,
        ) as deployment,
    ):
        yield Served(request.param, model_dir, deployment, store, Workshop(model_dir))


@dataclass(frozen=True)
class Spoken:
    """A deployment and a stub of its language worker."""

    served: Served
    stub: language_pb2_grpc.LanguageServiceStub

    @property
    def deployment(self) -> Deployment:
        return self.served.deployment


@pytest.fixture
def spoken(served: Served) -> Iterator[Spoken]:
    """The language worker over gRPC."""
    with grpc.insecure_channel(served.deployment.language[0].address) as channel:
        yield Spoken(served, language_pb2_grpc.LanguageServiceStub(channel))  # type: ignore[no-untyped-call]
