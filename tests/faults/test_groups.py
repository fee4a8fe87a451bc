"""Redis that is several servers, under eight clients: fail-over and resharding lose nothing and make nothing wrong."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.cache.groups import Group, cluster, wait, watched
from tests.deployment import Deployment, deploy
from tests.faults.crowd import Album, Crowd, longest_s, median_s
from tests.faults.test_store import FORGETFUL, NUM_CLIENTS, told

pytestmark = pytest.mark.alone

CALM_S = 2.0
SLOTS_MOVED = 2000


def kill_a_primary(group: Group) -> None:
    """SIGKILL, and waits until others have taken its place."""
    before = len(group.primaries())
    victim = group.primaries()[0]
    victim.process.kill()
    victim.process.wait()
    wait(lambda: len(group.primaries()) == before, "a replica to become a primary")
    if not group.sentinels:
        wait(group.is_well, "the cluster to be well again")


def freeze_a_primary(group: Group) -> None:
    """SIGSTOP until another has taken its place, and then SIGCONT."""
    victim = group.primaries()[0]
    others = [node for node in group.nodes if node is not victim]
    count = len(group.primaries())
    victim.process.send_signal(signal.SIGSTOP)
    try:
        wait(
            lambda: sum(node.answers("INFO", "replication").get("role") == "master" for node in others) == count,
            "a replica to become a primary",
        )
    finally:
        victim.process.send_signal(signal.SIGCONT)
    wait(lambda: len(group.primaries()) == count, "the old primary to follow the new one")


def reshard(group: Group) -> None:
    """Moves slots from one primary to another, key by key, while they are used."""
    giver, taker, *_ = group.primaries()
    ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in (giver, taker)]
    slots = ("--cluster-from", ids[0], "--cluster-to", ids[1], "--cluster-slots", str(SLOTS_MOVED))
    group.run("reshard", giver.name, *slots, "--cluster-yes")
    wait(group.is_well, "the cluster to be well again")


def assert_used(deployment: Deployment, group: Group) -> None:
    """The store is used again: the workers find it well, and what is asked about is kept there."""
    wait(
        lambda: deployment.vision_info().store_healthy and deployment.language_info().store_healthy,
        "the workers to find their store well",
    )
    wait(lambda: any(node.client.dbsize() for node in group.primaries()), "entries in the store")


@pytest.mark.parametrize(
    ("kind", "faults"),
    [(watched, (freeze_a_primary, kill_a_primary)), (cluster, (reshard, freeze_a_primary, kill_a_primary))],
    ids=["sentinel", "cluster"],
)
def test_failover_loses_nothing(
    kind: Callable[[Path], AbstractContextManager[Group]],
    faults: tuple[Callable[[Group], None], ...],
    model_dir: Path,
    album: Album,
    tmp_path: Path,
) -> None:
    """A primary is frozen, another killed, a cluster's slots are moved, and everybody asks on: all answers right."""
    with (
        kind(tmp_path / "redis") as group,
        deploy(model_dir, f"{group.url}?read_replicas=true", tmp_path, language=FORGETFUL) as deployment,
    ):
        crowd = Crowd(deployment.url, album)
        with crowd.asking(NUM_CLIENTS):
            time.sleep(CALM_S)
            calm = median_s(crowd.outcomes)
            for fault in faults:
                began = time.monotonic()
                fault(group)
                assert_used(deployment, group)
                during = crowd.since(began)
                print(f"{fault.__name__}: {len(during)} requests, longest {longest_s(during):.2f} s, calm {calm:.2f} s")
        assert not crowd.problems(), told(crowd.problems())
