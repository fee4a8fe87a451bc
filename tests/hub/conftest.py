from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.access import Hub, HubSettings
from tests import families
from tests.hub.server import TestHub, serving

MODELS = {
    "one": {"family": "qwen2_vl"},
    "sharded": {"family": "qwen3_vl", "sharded": True},
    "mixed": {"family": "qwen2_5_vl", "mixed_shards": True},
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint in one file, one with shards of one half each, and one whose shards hold both."""
    root = tmp_path_factory.mktemp("hub-models")
    return {name: families.make(directory=root / name, **options) for name, options in MODELS.items()}  # type: ignore[arg-type]


@pytest.fixture
def server(models: dict[str, Path]) -> Iterator[TestHub]:
    """A hub that serves them as `org/one`, `org/sharded` and `org/mixed`."""
    with serving() as hub:
        for name, directory in models.items():
            hub.add(f"org/{name}", directory)
        yield hub


@pytest.fixture
def access(server: TestHub, tmp_path: Path) -> Iterator[Hub]:
    """That hub, asked with an empty cache."""
    hub = Hub(HubSettings(server.url, tmp_path / "hub-cache", token=None, offline=False))
    yield hub
    hub.close()
