"""A deployment whose parts know each other by name, and whose vision workers encode each image once together."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from protos import vision_pb2, vision_pb2_grpc
from tests.deployment import CALL_S, Deployment, deploy, environment, redis_server
from tests.end_to_end.asking import MAX_TOKENS, chat, png
from tests.families import make
from tests.lm_server.workshop import Workshop, ask


@dataclass(frozen=True)
class Named:
    """A deployment of one language worker and two vision workers, the first known by name and the other by address."""

    deployment: Deployment
    model_dir: Path
    flags: dict[str, str]

    def encoded(self) -> float:
        """Images that the vision workers have encoded together."""
        infos = [self.deployment.vision_info(place) for place in range(2)]
        return sum(info.counters.get("lookonce_images_encoded_total", 0.0) for info in infos)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    """Started and paired."""
    root = tmp_path_factory.mktemp("names")
    model_dir = make("qwen3_vl", root / "model")
    with (
        redis_server(root / "store") as store,
        deploy(model_dir, store.url, root, num_vision=2, start=False) as deployment,
    ):
        first, other = (process.address for process in deployment.vision)
        flags = {
            "--vision": f"dns:localhost:{first.rpartition(':')[2]},{other}",
            "--language": f"dns:localhost:{deployment.language[0].address.rpartition(':')[2]}",
        }
        deployment.language[0].command = [*deployment.language[0].command, "--vision", flags["--vision"]]
        deployment.gateway.command = [
            *deployment.gateway.command,
            *("--routing-resolve-s", "0.5"),
            *(word for item in flags.items() for word in item),
        ]
        deployment.start()
        yield Named(deployment, model_dir, flags)


def test_workers_found_by_name_answer(named: Named) -> None:
    """Answers are the whole model's, and /ready names every worker by the address that was found."""
    case = ask("What is this?", 1)
    expected = Workshop(named.model_dir).expected(case, MAX_TOKENS).text
    assert chat(named.deployment.http, case, "model").text == expected
    ready = named.deployment.http.get("/ready").json()
    assert {state["address"] for state in ready["vision"]} == {each.address for each in named.deployment.vision}
    assert [state["address"] for state in ready["language"]] == [named.deployment.language[0].address]


def test_the_doctor_finds_workers_by_name(named: Named) -> None:
    """`lookonce doctor` resolves the names, examines whoever is there, and finds the deployment sound."""
    words = [word for item in named.flags.items() for word in item]
    command = [sys.executable, "-m", "lookonce", "doctor", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for process in (*named.deployment.vision, *named.deployment.language):
        assert process.address in done.stdout
    assert "dns:localhost:" in done.stdout


def test_two_processes_encode_an_image_once(named: Named) -> None:
    """Eight simultaneous uploads of each of three new images straight to two processes cause three encodings."""
    before = named.encoded()
    channels = [grpc.insecure_channel(process.address) for process in named.deployment.vision]
    stubs = [vision_pb2_grpc.VisionServiceStub(channel) for channel in channels]  # type: ignore[no-untyped-call]

    def upload(place: int, number: int) -> vision_pb2.Image:
        image: vision_pb2.Image = stubs[place % 2].Encode(vision_pb2.EncodeRequest(image=png(number)), timeout=CALL_S)
        return image

    try:
        with ThreadPoolExecutor(8) as pool:
            for number in (2, 3, 4):
                images = list(pool.map(lambda place, number=number: upload(place, number), range(8)))
                assert len({image.image_id for image in images}) == 1
                assert sum(not image.cached for image in images) == 1
    finally:
        for channel in channels:
            channel.close()
    assert named.encoded() == before + 3
