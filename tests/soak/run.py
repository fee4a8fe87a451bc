"""The soak: a calm beginning that gives the baseline, the faults, and a calm end that is held against it."""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.deployment import Deployment, deploy, wait_until
from tests.families import make
from tests.faults.crowd import Album, Crowd, Outcome, make_album
from tests.faults.proxy import Proxy
from tests.faults.store_faults import Store, open_store
from tests.soak.havoc import Havoc
from tests.soak.leftovers import SPARE_BYTES, SPARE_COLD_BYTES, InUse, breaches, in_use

NUM_PICTURES = 24
BY_ID = 0.3
LEAVING = 0.15
# A long run warms up until memory has stopped growing.
WARM_S = 90.0
SHORT_WARM_S = 5.0
LONG_S = 600.0
# How long it is calm after a fault: a short run has every fault too.
CALM_S = 1.5
SHORT_CALM_S = 0.4
# Small, so that prefixes and entries come and go all the time.
SMALL = ("--local-cache-bytes", "400000", "--kv-bytes", "8000000", "--max-wait-s", "20")


@dataclass(frozen=True, slots=True)
class Soaked:
    """One run.

    Attributes:
        outcomes: What became of every request.
        faults: Fault → how often it was done.
        before: Process → what it had in use when idle, before.
        after: The same at the end.
        breaches: What was promised and not kept, in words.
    """

    outcomes: list[Outcome]
    faults: Mapping[str, int]
    before: Mapping[str, InUse]
    after: Mapping[str, InUse]
    breaches: list[str]


def soak(
    seconds: float, num_clients: int = 64, seed: int = 0, progress: Callable[[float], None] = lambda done_s: None
) -> Soaked:
    """Runs for so long, the calm beginning and end not counted."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        model_dir = make("qwen2_vl", directory / "model")
        album = make_album(model_dir, NUM_PICTURES)
        deployment, store, link = stack.enter_context(_deployed(model_dir, directory))
        _warm_up(deployment, album, num_clients, WARM_S if seconds >= LONG_S else SHORT_WARM_S)
        before = _when_idle(deployment, album)
        crowd = Crowd(deployment.url, album, by_id=BY_ID, leaving=LEAVING)
        havoc = Havoc(deployment, store, link, seed, CALM_S if seconds >= LONG_S else SHORT_CALM_S)
        with _ticking(seconds, progress), crowd.asking(num_clients), havoc.going_on():
            time.sleep(seconds)
        wait_until(lambda: deployment.readiness() == "ready", "all to be well again")
        last = _warm_up(deployment, album, num_clients, SHORT_WARM_S)
        after = _when_idle(deployment, album)
    spare_bytes = SPARE_BYTES if seconds >= LONG_S else SPARE_COLD_BYTES
    told = [*judge(crowd.outcomes), *judge(last.outcomes), *breaches(before, after, spare_bytes)]
    if last.problems():
        told.append(f"after the faults: {last.problems()[0].told}")
    if havoc.failure is not None:
        told.append(f"a fault could not be undone: {havoc.failure}")
    return Soaked(crowd.outcomes, havoc.done, before, after, told)


def judge(outcomes: list[Outcome]) -> Iterator[str]:
    """What no request may come to: a wrong answer, or an end that is neither an answer nor a typed error."""
    for verdict in ("wrong", "failed"):
        bad = [outcome for outcome in outcomes if outcome.verdict == verdict]
        if bad:
            yield f"{len(bad)} requests {verdict}: {bad[0].told}"
    if not any(outcome.verdict == "right" for outcome in outcomes):
        yield "no request was answered"


@contextmanager
def _deployed(model_dir: Path, directory: Path) -> Iterator[tuple[Deployment, Store, Proxy]]:
    with open_store(directory / "store") as store, Proxy(store.address) as link:
        url = f"redis://{link.address}/0"
        with deploy(model_dir, url, directory, num_vision=2, num_language=2, language=SMALL) as deployment:
            yield deployment, store, link


def _warm_up(deployment: Deployment, album: Album, num_clients: int, seconds: float) -> Crowd:
    """As many clients as later on, calm: connections, pools and caches grow to what they will be."""
    crowd = Crowd(deployment.url, album, by_id=BY_ID)
    with crowd.asking(num_clients):
        time.sleep(seconds)
    return crowd


def _when_idle(deployment: Deployment, album: Album) -> dict[str, InUse]:
    """What is in use when nothing runs and every picture was deleted."""
    wait_until(lambda: all(_is_idle(deployment, place) for place in range(len(deployment.language))), "idle workers")
    for image_id in _ids(deployment, album):
        deployment.http.delete(f"/v1/images/{image_id}")
    # Connections of clients that have left, and memory given back, take a moment.
    time.sleep(2)
    return in_use(deployment)


def _ids(deployment: Deployment, album: Album) -> list[str]:
    body = {"images": album.urls, "questions": [{"text": "All of them.", "max_tokens": 1}]}
    reply = deployment.http.post("/v1/answers", json=body, timeout=60)
    if reply.status_code != httpx.codes.OK:
        raise RuntimeError(f"the pictures' ids are not told: {reply.text}")
    return list(reply.json()["images"])


def _is_idle(deployment: Deployment, place: int) -> bool:
    info = deployment.language_info(place)
    return (info.running, info.waiting) == (0, 0)


@contextmanager
def _ticking(seconds: float, progress: Callable[[float], None]) -> Iterator[None]:
    """Calls `progress` with the seconds that are over, twice a second."""
    over, began = threading.Event(), time.monotonic()

    def tick() -> None:
        while not over.wait(0.5):
            progress(min(time.monotonic() - began, seconds))

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def percentile_s(outcomes: list[Outcome], percent: int) -> float:
    """The time within which so many percent of the answered requests were."""
    seconds = sorted(outcome.seconds for outcome in outcomes if outcome.verdict == "right")
    if len(seconds) < 2:
        return seconds[0] if seconds else 0.0
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]
