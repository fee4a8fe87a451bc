"""Tiny checkpoints, a store, and where fingerprints are remembered."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cache.servers import Server, socket_server, valkey_binary
from tests.families import make

MakeCheckpoint = Callable[[str], Path]


@pytest.fixture(scope="session", autouse=True)
def _cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fingerprints are remembered in a directory of the test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-home")))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Makes a family's tiny checkpoint, once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = make(family, tmp_path_factory.mktemp(family) / "model")
        return made[family]

    return get


@pytest.fixture
def model(checkpoint: MakeCheckpoint) -> Path:
    return checkpoint("qwen2_vl")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket_server(valkey_binary(), tmp_path) as running_server:
        yield running_server
