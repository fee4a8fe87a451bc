"""The network between two parts misbehaves: between gateway and workers, between the halves, before Redis."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.deployment import Deployment, Process, deploy, wait_until
from tests.faults.crowd import Album, Crowd, Outcome, longest_s
from tests.faults.proxy import Fault, Proxy
from tests.faults.store_faults import open_store
from tests.faults.test_store import FORGETFUL, STALL_S, told

pytestmark = pytest.mark.alone

CALM_S = 0.4
WATCH_S = 2.0
NUM_CLIENTS = 4
# A stream whose frames were garbled may never end by itself: so long it is waited for.
REQUEST_S = 15.0
# Faults that a request outlives at the cost of time alone.
SLOW = (Fault.DELAY, Fault.DRIP)


def through(process: Process, target: str, proxy: Proxy) -> None:
    """Has a process that is not started yet reach `target` by the proxy."""
    process.command = [word.replace(target, proxy.address) for word in process.command]


@contextmanager
def behind_proxies(model_dir: Path, directory: Path) -> Iterator[tuple[Deployment, dict[str, Proxy]]]:
    """A deployment with a proxy in every connection: store, language-vision, gateway-vision, gateway-language."""
    with ExitStack() as stack:
        store = stack.enter_context(open_store(directory / "store"))
        links = {"store": stack.enter_context(Proxy(store.address))}
        deployed = stack.enter_context(
            deploy(
                model_dir,
                f"redis://{links['store'].address}/0",
                directory,
                language=FORGETFUL,
                gateway=("--request-timeout-s", str(REQUEST_S)),
                start=False,
            )
        )
        vision, language = deployed.vision[0], deployed.language[0]
        for name, process, worker in (
            ("language-vision", language, vision),
            ("gateway-vision", deployed.gateway, vision),
            ("gateway-language", deployed.gateway, language),
        ):
            links[name] = stack.enter_context(Proxy(worker.address))
            through(process, worker.address, links[name])
        deployed.start()
        yield deployed, links


@pytest.fixture(scope="module")
def linked(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, dict[str, Proxy]]]:
    """One deployment for all the links; each test leaves it as it was."""
    with behind_proxies(model_dir, tmp_path_factory.mktemp("links")) as opened:
        yield opened


def crowd_during(deployment: Deployment, album: Album, link: Proxy, fault: Fault) -> Crowd:
    """Four clients before, during and after a fault of one link."""
    wait_until(lambda: deployment.readiness() == "ready", "all to be well", 30)
    crowd = Crowd(deployment.url, album)
    with crowd.asking(NUM_CLIENTS):
        time.sleep(CALM_S)
        with link.doing(fault):
            time.sleep(WATCH_S)
        time.sleep(CALM_S)
    return crowd


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_nothing_is_lost_between_workers_and_redis(
    linked: tuple[Deployment, dict[str, Proxy]], album: Album, fault: Fault
) -> None:
    """Delay, drip, flipped bits, a black hole and cuts before Redis: every request is answered, and none stalls."""
    deployment, links = linked
    crowd = crowd_during(deployment, album, links["store"], fault)
    assert not crowd.problems(), told(crowd.problems())
    if fault not in SLOW:
        assert longest_s(crowd.outcomes) < STALL_S + 1


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_nothing_is_lost_between_the_halves_while_redis_answers(
    linked: tuple[Deployment, dict[str, Proxy]], album: Album, fault: Fault
) -> None:
    """With the language worker cut off from the vision worker, entries come from Redis and no request fails."""
    deployment, links = linked
    crowd = crowd_during(deployment, album, links["language-vision"], fault)
    assert not crowd.problems(), told(crowd.problems())


def is_garbled(outcome: Outcome, fault: Fault) -> bool:
    """Whether an answer's text was changed on its way, and is no other picture's."""
    return fault is Fault.CORRUPT and outcome.verdict == "wrong" and outcome.told.endswith("no picture's answer")


@pytest.mark.parametrize("link", ["gateway-vision", "gateway-language"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_a_broken_link_to_the_only_worker_gives_typed_errors(
    linked: tuple[Deployment, dict[str, Proxy]], album: Album, link: str, fault: Fault
) -> None:
    """Where there is no other worker to ask, requests end in answers or typed errors; then all is well again.

    Bits flipped within a text are TCP's and TLS's to see; also then no answer is another picture's.
    """
    deployment, links = linked
    crowd = crowd_during(deployment, album, links[link], fault)
    allowed = () if fault in SLOW else ("refused",)
    problems = [each for each in crowd.problems(*allowed) if not is_garbled(each, fault)]
    assert not problems, told(problems)
    wait_until(lambda: deployment.readiness() == "ready", "all to be well again", 30)
    after = Crowd(deployment.url, album)
    with after.asking(1):
        wait_until(lambda: bool(after.outcomes), "an outcome")
    assert not after.problems(), told(after.problems())
