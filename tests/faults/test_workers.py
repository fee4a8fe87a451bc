"""Workers that are killed, frozen, or told to stop, under load and with others of their kind beside them."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deployment import Deployment, Process, deploy, wait_until
from tests.end_to_end.asking import png
from tests.faults.crowd import QUESTIONS, Album, Crowd, longest_s
from tests.faults.store_faults import open_store
from tests.faults.test_store import FORGETFUL, told

pytestmark = pytest.mark.alone

NUM_CLIENTS = 6
WATCH_S = 2.0
FROZEN_S = 8.0


@contextmanager
def pairs(model_dir: Path, directory: Path) -> Iterator[Deployment]:
    """Two workers of each half over one Redis."""
    with (
        open_store(directory / "store") as store,
        deploy(model_dir, store.url, directory, num_vision=2, num_language=2, language=FORGETFUL) as deployment,
    ):
        yield deployment


@pytest.fixture(scope="module")
def doubled(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers of each half; each test leaves all of them running."""
    with pairs(model_dir, tmp_path_factory.mktemp("doubled")) as deployment:
        yield deployment


def worker(deployment: Deployment, half: str) -> Process:
    """The first worker of a half."""
    return (deployment.vision if half == "vision" else deployment.language)[0]


def ready(deployment: Deployment) -> None:
    """Returns once all is well."""
    wait_until(lambda: deployment.readiness() == "ready", "all to be well", 60)


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_killed_worker_fails_no_request_while_another_is_there(doubled: Deployment, album: Album, half: str) -> None:
    """SIGKILL of one of two workers under load: what had not begun to stream is answered by the other one."""
    ready(doubled)
    crowd = Crowd(doubled.url, album)
    with crowd.asking(NUM_CLIENTS):
        time.sleep(WATCH_S)
        worker(doubled, half).kill()
        time.sleep(WATCH_S)
        with crowd.pausing():
            worker(doubled, half).start()
        time.sleep(WATCH_S)
    assert not crowd.problems(), told(crowd.problems())


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_frozen_worker_fails_no_request_while_another_is_there(doubled: Deployment, album: Album, half: str) -> None:
    """SIGSTOP of one of two workers: within seconds what waits for it is asked of the other one."""
    ready(doubled)
    crowd = Crowd(doubled.url, album)
    with crowd.asking(NUM_CLIENTS):
        time.sleep(1)
        worker(doubled, half).signal(signal.SIGSTOP)
        time.sleep(FROZEN_S)
        during = len(crowd.outcomes)
        worker(doubled, half).signal(signal.SIGCONT)
        time.sleep(WATCH_S)
    print(f"{half} frozen: {during} requests meanwhile, longest {longest_s(crowd.outcomes):.1f} s")
    assert not crowd.problems(), told(crowd.problems())
    assert longest_s(crowd.outcomes) < FROZEN_S - 1


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_rolling_restart_fails_no_request(doubled: Deployment, album: Album, part: str) -> None:
    """Each worker of a half is told to stop, drains, ends with status 0 and starts again, one by one, under load."""
    ready(doubled)
    crowd = Crowd(doubled.url, album)
    with crowd.asking(NUM_CLIENTS):
        time.sleep(1)
        for process in doubled.vision if part == "vision" else doubled.language:
            assert process.stop() == 0
            with crowd.pausing():
                process.start()
                ready(doubled)
        time.sleep(1)
    assert not crowd.problems(), told(crowd.problems())


def test_ready_says_which_half_is_missing(doubled: Deployment) -> None:
    """Without language workers it is unready and says so, without vision workers degraded; with one of two degraded."""
    ready(doubled)
    state = doubled.http.get("/ready").json()
    assert (state["status"], state["missing"]) == ("ready", [])
    doubled.vision[0].kill()
    wait_until(lambda: doubled.readiness() == "degraded", "/ready to say degraded")
    doubled.vision[1].kill()
    wait_until(lambda: doubled.http.get("/ready").json()["missing"] == ["vision"], "/ready to name the half")
    assert doubled.http.get("/ready").status_code == 200
    for process in doubled.language:
        process.kill()
    wait_until(lambda: doubled.readiness() == "unready", "/ready to say unready")
    reply = doubled.http.get("/ready")
    assert (reply.status_code, sorted(reply.json()["missing"])) == (503, ["language", "vision"])
    doubled.start_ended()


def test_an_image_that_is_not_cached_meets_another_vision_worker(doubled: Deployment, album: Album) -> None:
    """With one vision worker killed new images are encoded by the other; with both, RetryInfo and 503."""
    ready(doubled)
    doubled.vision[0].kill()
    headers = {"content-type": "image/png"}
    for number in range(100, 110):
        assert doubled.http.post("/v1/images", content=png(number), headers=headers).status_code == 200
    doubled.vision[1].kill()
    refused = doubled.http.post("/v1/images", content=png(200), headers=headers)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    doubled.start_ended()


def test_a_stream_from_a_killed_worker_ends_with_an_error(doubled: Deployment, album: Album) -> None:
    """Language workers killed in mid-stream: every stream ends with an error event, none with a finished answer."""
    ready(doubled)
    ended: list[list[str]] = []

    def stream(picture: int) -> None:
        questions = [{"text": QUESTIONS[0], "max_tokens": 2000} for _ in range(8)]
        body = {"images": [album.urls[picture]], "questions": questions, "stream": True, "temperature": 1}
        with doubled.http.stream("POST", "/v1/answers", json=body, timeout=60) as response:
            ended.append([line.removeprefix("data: ") for line in response.iter_lines() if line])

    threads = [threading.Thread(target=stream, args=(picture,)) for picture in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: ended or sum(doubled.language_info(place).running for place in range(2)), "the streams to run")
    assert not ended
    for process in doubled.language:
        process.kill()
    for thread in threads:
        thread.join()
    doubled.start_ended()
    assert len(ended) == 4
    for events in ended:
        assert events[-1] != "[DONE]"
        assert json.loads(events[-1])["error"]["code"] == "unavailable"
