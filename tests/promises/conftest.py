"""One deployment of real processes for every test of the promises."""

from collections.abc import Iterator

import grpc
import pytest

from protos import language_pb2_grpc, vision_pb2_grpc
from tests.deployment import deploy, redis_server
from tests.families import make
from tests.promises.served import Served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A store, a vision worker, a language worker and a gateway over a tiny random checkpoint."""
    root = tmp_path_factory.mktemp("promises")
    model = make("qwen2_vl", root / "model")
    with (
        redis_server(root / "store") as store,
        deploy(model, store.url, root) as deployment,
        grpc.insecure_channel(deployment.vision[0].address) as eyes,
        grpc.insecure_channel(deployment.language[0].address) as mouth,
    ):
        vision = vision_pb2_grpc.VisionServiceStub(eyes)  # type: ignore[no-untyped-call]
        language = language_pb2_grpc.LanguageServiceStub(mouth)  # type: ignore[no-untyped-call]
        yield Served(deployment, model, store, eyes, mouth, vision, language)
