"""One deployment of real processes for each family, shared by the tests that leave it as it was."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cache.servers import Server
from tests.deployment import Deployment, deploy, redis_server
from tests.end_to_end.asking import MAX_TOKENS, Reply
from tests.families import FAMILIES, make
from tests.lm_server.workshop import Case, Workshop, ask

# The embedded server for every family; Debian's, where it is installed, for one family with DeepStack and one without.
COMBINATIONS = [*((family, "valkey") for family in FAMILIES), ("qwen2_vl", "redis"), ("qwen3_vl", "redis")]

# What every engine is asked.
ONE_IMAGE, TWO_IMAGES = ask("What is this?", 11), ask("比较这两张图片。", 11, 12)
CHOICES = ("yes", "no", "yes, certainly so", "a photograph of two dogs", "图片")


@dataclass(frozen=True)
class Served:
    """A deployment, its store, and the whole model to hold it against."""

    family: str
    model_dir: Path
    deployment: Deployment
    store: Server
    oracle: Workshop

    @property
    def model(self) -> str:
        """The name that the gateway gives the model."""
        return str(self.deployment.http.get("/v1/models").json()["data"][0]["id"])


def agrees(reply: Reply, served: Served, case: Case) -> None:
    """Fails unless the reply is the whole model's answer, token for token."""
    expected = served.oracle.expected(case, MAX_TOKENS)
    assert (reply.text, reply.num_tokens) == (expected.text, len(expected.tokens))


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Each family served over each store."""
    family, kind = request.param
    root = tmp_path_factory.mktemp(family)
    model_dir = make(family, root / "model")
    with redis_server(root / "store", kind) as store, deploy(model_dir, store.url, root) as deployment:
        yield Served(family, model_dir, deployment, store, Workshop(model_dir))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The demo model served, for the tests that leave it as it was."""
    root = tmp_path_factory.mktemp("demo")
    with redis_server(root / "store") as store, deploy("demo", store.url, root) as deployment:
        yield deployment
