"""The overload run: the peak is found, then ten times as much comes, nearly all of it one tenant's."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.deployment import Deployment, deploy
from tests.end_to_end.asking import png
from tests.endless import make_endless
from tests.overload.arrivals import TIMEOUT_S, Arrival, closed_loop, open_loop

TIMES = 10.0
# Of the peak, what the second tenant sends: well within its half.
MODEST_PART = 0.25
CLIENTS = (8, 16, 32)
# As many as run at a time.
FULL = (16,)
# What is asked of the run.
LEAST_GOODPUT = 0.8
LEAST_MODEST = 0.9
MAX_QUESTIONS = 48
# One tenant fills the queue, the second has its share beyond.
MOST_WAITING = MAX_QUESTIONS + MAX_QUESTIONS // 2
# Until the first full batch has been answered: answers take seconds, and end together. Of a short run a third.
RAMP_S = 10.0
RAMP_PART = 3
FLAGS = ("--max-questions", str(MAX_QUESTIONS), "--max-running", "16", "--max-wait-s", "5")


@dataclass(frozen=True, slots=True)
class Overloaded:
    """One run.

    Attributes:
        peak: Answers a second, the most that closed loops got.
        offered: Requests a second that came.
        goodput: Answers a second meanwhile.
        arrivals: What became of each request.
        most_waiting: The most questions that the worker had taken in and not answered.
    """

    peak: float
    offered: float
    goodput: float
    arrivals: list[Arrival]
    most_waiting: int

    def part_answered(self, tenant: str) -> float:
        """The part of a tenant's requests that was answered."""
        own = [arrival for arrival in self.arrivals if arrival.tenant == tenant]
        return sum(arrival.verdict == "answered" for arrival in own) / max(1, len(own))

    def breaches(self) -> Iterator[str]:
        """What was promised and not kept, in words."""
        if self.goodput < LEAST_GOODPUT * self.peak:
            yield f"goodput fell to {self.goodput:.1f} of {self.peak:.1f} answers a second"
        yield from self.unfair()

    def unfair(self) -> Iterator[str]:
        """The breaches that no slow machine excuses."""
        lost = [arrival for arrival in self.arrivals if arrival.verdict == "lost"]
        if lost:
            yield f"{len(lost)} requests ended in neither an answer nor a refusal: {lost[0].told}"
        if self.part_answered("modest") < LEAST_MODEST:
            yield f"of the modest tenant's requests {self.part_answered('modest'):.0%} were answered"
        if self.most_waiting > MOST_WAITING:
            yield f"{self.most_waiting} questions were taken in at once"


def overload(seconds: float, peak_s: float, *, is_short: bool = False) -> Overloaded:
    """Looks for the peak for `peak_s` at each number of clients, then overloads for so long, and looks again.

    Where it `is_short` the peak only tells how much ten times as much is: one look will do.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tokens = directory / "tokens"
        tokens.write_text("greedy greedy\nmodest modest\n")
        model_dir = make_endless(directory / "model")
        gateway = ("--tokens-file", str(tokens))
        with deploy(model_dir, "memory://", directory, language=FLAGS, gateway=gateway, start=False) as deployment:
            deployment.http.headers["Authorization"] = "Bearer modest"
            deployment.start()
            ids = {tenant: _upload(deployment, tenant) for tenant in ("greedy", "modest")}
            return asyncio.run(_run(deployment, ids, seconds, peak_s, is_short=is_short))


def _upload(deployment: Deployment, tenant: str) -> str:
    headers = {"Authorization": f"Bearer {tenant}", "content-type": "image/png"}
    return str(deployment.http.post("/v1/images", content=png(1), headers=headers).json()["id"])


async def _run(
    deployment: Deployment, ids: Mapping[str, str], seconds: float, peak_s: float, *, is_short: bool
) -> Overloaded:
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=deployment.url, timeout=TIMEOUT_S, limits=unlimited) as http:
        # Threads, connections and caches first.
        await closed_loop(http, "greedy", ids["greedy"], CLIENTS[0], 1.0)
        before = peak = await _peak(http, ids["greedy"], peak_s, FULL if is_short else CLIENTS)
        modest = MODEST_PART * before
        with _watching(deployment) as waiting:
            began = time.monotonic()
            both = await asyncio.gather(
                open_loop(http, "greedy", ids["greedy"], TIMES * before - modest, seconds),
                open_loop(http, "modest", ids["modest"], modest, seconds),
            )
        if not is_short:
            # A machine that others use too is not as fast at all times.
            peak = (before + await _peak(http, ids["greedy"], peak_s, CLIENTS)) / 2
    arrivals = [arrival for each in both for arrival in each]
    start, end = began + min(RAMP_S, seconds / RAMP_PART), began + seconds
    good = sum(arrival.verdict == "answered" and start <= arrival.ended < end for arrival in arrivals)
    return Overloaded(peak, TIMES * before, good / (end - start), arrivals, max(waiting, default=0))


async def _peak(http: httpx.AsyncClient, image_id: str, seconds: float, clients: Sequence[int]) -> float:
    """The most answers a second that closed loops of so many clients get, each running so long."""
    return max([await closed_loop(http, "greedy", image_id, count, seconds) for count in clients])


@contextmanager
def _watching(deployment: Deployment) -> Iterator[list[int]]:
    """The numbers of questions taken in, looked at twice a second within."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            info = deployment.language_info()
            seen.append(info.running + info.waiting)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
