"""A Redis that misbehaves in every way that the table names, under eight clients: no wrong answer, none lost."""

import time
from pathlib import Path

import pytest

from tests.deployment import Deployment, deploy
from tests.faults.crowd import Album, Crowd, Outcome, longest_s, median_s
from tests.faults.store_faults import Store, open_store

pytestmark = pytest.mark.alone

NUM_CLIENTS = 8
CALM_S = 1.5
# So long each fault is watched.
WATCH_S = 1.2
# The promise: no request is longer than the calm median by more than this.
STALL_S = 3.0
# A language worker that keeps next to nothing by itself, so that every question meets the store.
FORGETFUL = ("--local-cache-bytes", "1", "--kv-bytes", "2000000")


def run_faults(store: Store) -> dict[str, float]:
    """Does everything to a store that the table names; what was done → when it began."""
    began: dict[str, float] = {}

    def watch(name: str) -> None:
        began[name] = time.monotonic()

    for name, fault in (
        ("flushed", store.flush),
        ("corrupted", store.corrupt),
        ("swapped", store.swap),
        ("truncated", store.truncate),
    ):
        watch(name)
        end = time.monotonic() + WATCH_S
        while time.monotonic() < end:
            fault()
            time.sleep(0.1)
    watch("read-only")
    with store.read_only():
        time.sleep(WATCH_S)
    watch("full")
    with store.full():
        time.sleep(WATCH_S)
    watch("frozen")
    store.freeze(6.0)
    time.sleep(WATCH_S)
    watch("killed")
    store.kill()
    time.sleep(WATCH_S)
    watch("restarted")
    store.start()
    time.sleep(WATCH_S)
    return began


def told(outcomes: list[Outcome]) -> str:
    """The first few, to be read in a failed test."""
    return "\n".join(f"{outcome.verdict} after {outcome.seconds:.1f} s: {outcome.told}" for outcome in outcomes[:5])


def test_no_answer_is_wrong_or_lost_whatever_the_store_does(model_dir: Path, album: Album, tmp_path: Path) -> None:
    """Flushed, corrupted, swapped, truncated, read-only, full, frozen for 6 s, killed and restarted under 8 clients.

    Every request is answered, each about its own picture, none later than 3 s beyond the calm median.
    """
    with (
        open_store(tmp_path / "store") as store,
        deploy(model_dir, store.url, tmp_path, language=FORGETFUL) as deployment,
    ):
        crowd = Crowd(deployment.url, album)
        with crowd.asking(NUM_CLIENTS):
            time.sleep(CALM_S)
            calm = median_s(crowd.outcomes)
            began = run_faults(store)
        print(f"calm median {calm:.3f} s, {len(crowd.outcomes)} requests")
        moments = [*began.values(), time.monotonic()]
        for (name, start), end in zip(began.items(), moments[1:], strict=True):
            during = [outcome for outcome in crowd.outcomes if start <= outcome.began < end]
            if during:
                print(f"{name}: {len(during)} requests, longest {longest_s(during):.2f} s")
        assert not crowd.problems(), told(crowd.problems())
        assert longest_s(crowd.outcomes) <= calm + STALL_S
        assert_settled(deployment)


def assert_settled(deployment: Deployment) -> None:
    """Nothing runs or waits any more."""
    info = deployment.language_info()
    assert (info.running, info.waiting) == (0, 0)
