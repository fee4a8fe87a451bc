"""A deployment on a real Ray cluster of two nodes: what dies on it, and what grows and shrinks, loses no request."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.faults.crowd import QUESTIONS, Album, Crowd, median_s
from tests.faults.test_store import FORGETFUL, told
from tests.ray.clusters import OnRay, TwoNodes, deployed, kill_replica, run_deploy, worker_at

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

NUM_CLIENTS = 6
WATCH_S = 2.0
TWO_OF_EACH = ("--vision-replicas", "2", "--language-replicas", "2", "--replicas-per-node", "1", "--language-cpus", "2")
SCALING = ("--language-replicas", "1:3", "--questions-per-replica", "1", "--upscale-s", "1", "--downscale-s", "2")


@pytest.fixture(scope="module")
def doubled(
    cluster: TwoNodes, model_dir: Path, store_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OnRay]:
    """A worker of each half on either node; each test leaves two of each."""
    directory = tmp_path_factory.mktemp("doubled")
    with deployed(cluster, model_dir, store_url, directory, *TWO_OF_EACH, *FORGETFUL) as there:
        yield there


@contextmanager
def long_questions(there: OnRay, album: Album) -> Iterator[None]:
    """Twelve questions with long answers are in work all the time within; each is answered in the end."""
    stop, failures = threading.Event(), []

    def ask(picture: int) -> None:
        questions = [{"text": text, "max_tokens": 400} for text in QUESTIONS]
        body = {"images": [album.urls[picture]], "questions": questions, "temperature": 1}
        while not stop.is_set():
            reply = there.http.post("/v1/answers", json=body)
            if reply.status_code != 200 or any(answer.get("error") for answer in reply.json()["answers"]):
                failures.append(reply.text)

    threads = [threading.Thread(target=ask, args=(picture,)) for picture in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_killed_replica_loses_no_request_and_comes_back(doubled: OnRay, album: Album, half: str) -> None:
    """SIGKILL of a replica and its worker under load: every answer is right, and Ray starts another one."""
    doubled.wait_members(half, 2)
    killed = sorted(doubled.members(half))[0]
    crowd = Crowd(doubled.url, album)
    with crowd.asking(NUM_CLIENTS):
        time.sleep(WATCH_S)
        began = time.monotonic()
        kill_replica(killed)
        doubled.wait_members(half, 2, without=frozenset({killed}))
        print(f"{half} replica killed: two serve again after {time.monotonic() - began:.1f} s")
        time.sleep(WATCH_S)
    assert len(crowd.since(began)) > NUM_CLIENTS
    assert not crowd.problems(), told(crowd.problems())


def test_a_replica_whose_worker_died_is_replaced(doubled: OnRay, album: Album) -> None:
    """SIGKILL of a worker alone under load: its replica fails Serve's checks, and another one comes."""
    doubled.wait_members("language", 2)
    killed = sorted(doubled.members("language"))[0]
    replica = worker_at(killed).parent()
    assert replica is not None
    crowd = Crowd(doubled.url, album)
    with crowd.asking(NUM_CLIENTS):
        began = time.monotonic()
        worker_at(killed).kill()
        doubled.wait_members("language", 2, without=frozenset({killed}))
        print(f"language worker killed alone: two serve again after {time.monotonic() - began:.1f} s")
    assert not crowd.problems(), told(crowd.problems())
    assert psutil.wait_procs([replica], timeout=30)[1] == []


def test_a_killed_node_loses_no_request(doubled: OnRay, cluster: TwoNodes, album: Album) -> None:
    """SIGKILL of everything on a node under load: every answer is right, and a new node gets workers by itself."""
    before = {half: doubled.members(half) for half in ("vision", "language")}
    crowd = Crowd(doubled.url, album)
    with crowd.asking(NUM_CLIENTS):
        time.sleep(WATCH_S)
        began = time.monotonic()
        cluster.kill_node()
        for half in before:
            doubled.wait_members(half, 1)
        on_one = time.monotonic()
        time.sleep(WATCH_S)
        cluster.add_node()
        for half in before:
            doubled.wait_members(half, 2)
        print(f"node killed: known after {on_one - began:.1f} s, two serve {time.monotonic() - on_one:.1f} s later")
        time.sleep(WATCH_S)
    assert len(crowd.since(began)) > NUM_CLIENTS
    assert not crowd.problems(), told(crowd.problems())
    for half, members in before.items():
        assert len(doubled.members(half) & members) == 1


def test_images_keep_to_their_language_worker(doubled: OnRay, album: Album) -> None:
    """A question about an image that was asked about before finds its prefix there, on whichever replica that is."""
    for url in album.urls:
        body = {"images": [url], "questions": [{"text": "What is this?", "max_tokens": 2}], "temperature": 0}
        usages = [doubled.http.post("/v1/answers", json=body).json()["usage"] for _ in range(2)]
        assert usages[1]["prompt_tokens_details"]["cached_tokens"] > 0


def test_ctrl_c_leaves_no_worker_behind(doubled: OnRay) -> None:
    """SIGTERM drains and takes the workers off the cluster; the status is 0."""
    processes = [worker_at(address) for half in ("vision", "language") for address in doubled.members(half)]
    assert len(processes) == 4
    assert doubled.stop() == 0, doubled.process.tail()
    _, left = psutil.wait_procs(processes, timeout=10)
    assert left == []


def test_workers_scale_with_the_load_and_lose_no_request(
    cluster: TwoNodes, model_dir: Path, store_url: str, album: Album, tmp_path: Path
) -> None:
    """One language worker becomes three under load and one again when it is over, with questions going on."""
    with deployed(cluster, model_dir, store_url, tmp_path, *SCALING, *FORGETFUL) as there:
        assert len(there.members("language")) == 1
        crowd = Crowd(there.url, album)
        began = time.monotonic()
        with long_questions(there, album), crowd.asking(NUM_CLIENTS):
            there.wait_members("language", 3)
            up_s = time.monotonic() - began
            time.sleep(WATCH_S)
        with crowd.asking(1):
            began = time.monotonic()
            there.wait_members("language", 1)
            down_s = time.monotonic() - began
            time.sleep(WATCH_S)
        print(f"1 to 3 in {up_s:.1f} s, 3 to 1 in {down_s:.1f} s, median {median_s(crowd.outcomes):.2f} s")
        assert not crowd.problems(), told(crowd.problems())


def test_a_killed_command_leaves_its_workers_to_the_next(
    cluster: TwoNodes, model_dir: Path, store_url: str, album: Album, tmp_path: Path
) -> None:
    """SIGKILL of the command leaves the workers; the same command serves again, and ends with nothing left."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with deployed(cluster, model_dir, store_url, tmp_path / "first") as there:
        left = [worker_at(address) for half in ("vision", "language") for address in there.members(half)]
        there.process.kill()
        assert all(process.is_running() for process in left)
    with deployed(cluster, model_dir, store_url, tmp_path / "second") as there:
        there.wait_members("language", 1)
        crowd = Crowd(there.url, album)
        with crowd.asking(1):
            time.sleep(WATCH_S)
        assert crowd.outcomes
        assert not crowd.problems(), told(crowd.problems())
    _, still = psutil.wait_procs(left, timeout=10)
    assert still == []


def test_a_checkpoint_at_fault_is_named(cluster: TwoNodes, store_url: str, tmp_path: Path) -> None:
    """Workers that cannot start end the command with what they said, and nothing stays on the cluster."""
    (tmp_path / "config.json").write_text("{}")
    ended = run_deploy("--model", str(tmp_path), "--address", cluster.address, "--cache", store_url)
    assert ended.returncode == 1
    assert "config.json" in ended.stderr, ended.stderr


def test_the_embedded_store_is_for_one_node(cluster: TwoNodes, model_dir: Path) -> None:
    """Without --cache a cluster of several nodes is refused: no other node could reach the store."""
    ended = run_deploy("--model", str(model_dir), "--address", cluster.address)
    assert ended.returncode == 1
    assert "--cache redis://" in ended.stderr
