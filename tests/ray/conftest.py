"""One checkpoint, one album, one store and one cluster of two nodes for every test on Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import redis_server
from tests.families import make
from tests.faults.crowd import Album, make_album
from tests.ray.clusters import TwoNodes

NUM_PICTURES = 8


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL checkpoint of random weights."""
    return make("qwen2_vl", tmp_path_factory.mktemp("ray") / "model")


@pytest.fixture(scope="session")
def album(model_dir: Path) -> Album:
    """Pictures that the whole model tells apart."""
    return make_album(model_dir, NUM_PICTURES)


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that every node reaches."""
    with redis_server(tmp_path_factory.mktemp("ray-store")) as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster() -> Iterator[TwoNodes]:
    """A head and one more node; skips where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is tested by `make test-ray` alone, in its own environment")
    with TwoNodes.started() as two:
        yield two
