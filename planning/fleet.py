"""A fleet under a traffic: requests routed as the gateway routes them, a store between the halves, workers that die."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

import simpy

from gateway.homes import Homes
from gateway.routing import rendezvous
from planning.costs import Costs
from planning.traffic import Request, Traffic
from planning.workers import Counts, Host, LanguageWorker, Lru, Process, VisionWorker

# Until a worker that died is known to be gone: the gateway asks every worker's health each second.
NOTICED_S = 1.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What serves.

    Attributes:
        vision: Vision workers.
        language: Language workers.
        kv_bytes: For kept prefixes in each language worker.
        store_bytes: For entries in Redis.
    """

    vision: int
    language: int
    kv_bytes: float = 1 << 30
    store_bytes: float = 64e9


@dataclass(frozen=True, slots=True)
class Deaths:
    """Workers that die in the middle of it: this part of each half, at this second; none comes back."""

    at_s: float
    part: float


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a request: when it came, and seconds until its last first token and its last answer."""

    at_s: float
    first_token_s: float
    answered_s: float


@dataclass(slots=True)
class Report:
    """One run.

    Attributes:
        served: The requests that were answered, in the order in which they ended.
        seconds: Until the last of them.
        counts: What happened.
        fleet: What served.
    """

    served: list[Served]
    seconds: float
    counts: Counts
    fleet: Fleet

    def first_token_s(self, percent: int) -> float:
        """This percentile over all requests."""
        return _percentile([each.first_token_s for each in self.served], percent)

    def answered_s(self, percent: int) -> float:
        """This percentile of the time to the last answer."""
        return _percentile([each.answered_s for each in self.served], percent)

    @property
    def entry_hits(self) -> float:
        """Part of the requests whose image needed no encoding."""
        # What a dead worker had begun is encoded twice.
        return max(0.0, 1 - self.counts.encodings / max(self.counts.requests, 1))

    @property
    def prefix_hits(self) -> float:
        """Part of the requests whose image's prefix was resident where they were sent."""
        return self.counts.prefix_hits / max(self.counts.requests, 1)

    @property
    def vision_use(self) -> float:
        """Part of its life that a vision worker computes."""
        return self.counts.busy_vision_s / self._lived_s(self.fleet.vision, self.counts.dead_vision)

    @property
    def language_use(self) -> float:
        """The same of a language worker."""
        return self.counts.busy_language_s / self._lived_s(self.fleet.language, self.counts.dead_language)

    def _lived_s(self, count: int, dead: int) -> float:
        """Seconds that so many workers lived, all together."""
        return self.seconds * count - (self.seconds - self.counts.died_at_s) * dead


@dataclass(slots=True)
class _Model:
    env: simpy.Environment
    costs: Costs
    traffic: Traffic
    counts: Counts
    vision: dict[str, VisionWorker]
    language: dict[str, LanguageWorker]
    store: Lru
    homes: Homes = field(default_factory=Homes)
    flights: dict[int, simpy.Event] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)

    def arrive(self, requests: Iterable[Request]) -> Process:
        """Starts every request when it comes."""
        for request in requests:
            yield self.env.timeout(max(0.0, request.at_s - self.env.now))
            self.env.process(self.serve(request))

    def serve(self, request: Request) -> Process:
        """The way of a request through the fleet."""
        self.counts.requests += 1
        yield self.env.timeout(self.costs.request_s)
        if not self.store.has(request.image):
            yield from self._encode(request)
        name = self._language(request)
        worker = self.language[name]
        worker.running += request.questions
        if not worker.has_prefix(request.image):
            num_bytes = self.traffic.image_tokens * self.costs.entry_bytes_per_token
            yield self.env.timeout(self.costs.store(num_bytes))
        # Who comes while it is being computed waits for that, and computes nothing himself.
        self.counts.prefix_hits += worker.has_prefix(request.image)
        yield worker.prefix(request.image)
        asked = worker.ask(request)
        yield asked.first_token
        first_token_s = self.env.now - request.at_s
        yield asked.done
        worker.running -= request.questions
        if not worker.is_alive:
            # What it had in work is asked of another once it is known to be gone.
            yield self.env.timeout(NOTICED_S)
            yield from self.serve(request)
            return
        self.served.append(Served(request.at_s, first_token_s, self.env.now - request.at_s))

    def _encode(self, request: Request) -> Process:
        """Encoded once for all who ask meanwhile."""
        if request.image in self.flights:
            yield self.flights[request.image]
            return
        flight = self.flights[request.image] = self.env.event()
        living = [name for name, worker in self.vision.items() if worker.is_alive]
        name = rendezvous(str(request.image).encode(), living)[0]
        yield from self.vision[name].encode(self.traffic.image_tokens)
        if not self.vision[name].is_alive:
            yield self.env.timeout(NOTICED_S)
            living.remove(name)
            again = rendezvous(str(request.image).encode(), living)[0]
            yield from self.vision[again].encode(self.traffic.image_tokens)
        self.store.keep(request.image, self.traffic.image_tokens * self.costs.entry_bytes_per_token)
        del self.flights[request.image]
        flight.succeed()

    def _language(self, request: Request) -> str:
        living = [name for name, worker in self.language.items() if worker.is_alive]
        running = {name: self.language[name].running for name in living}
        name = self.homes.order(str(request.image), living, running)[0]
        self.homes.settle(str(request.image), name)
        return name

    def die(self, deaths: Deaths) -> Process:
        """Some of each half die; at least one of each stays."""
        yield self.env.timeout(deaths.at_s)
        self.counts.died_at_s = deaths.at_s
        self.counts.dead_vision = _kill(list(self.vision.values()), deaths.part)
        self.counts.dead_language = _kill(list(self.language.values()), deaths.part)


def _kill(workers: Sequence[VisionWorker | LanguageWorker], part: float) -> int:
    """Ends this part of them, one at least, and leaves one at least; how many died."""
    count = min(max(1, round(part * len(workers))), len(workers) - 1)
    for worker in workers[:count]:
        worker.is_alive = False
    return count


def simulate(
    costs: Costs, traffic: Traffic, fleet: Fleet, requests: Sequence[Request], deaths: Deaths | None = None
) -> Report:
    """Runs until every request is answered."""
    env, counts = simpy.Environment(), Counts()
    shared = Host(simpy.Resource(env, 1)) if costs.shares_cores and fleet.vision == fleet.language == 1 else None
    vision = {f"vision{n}": VisionWorker(env, shared or Host(None), costs, counts) for n in range(fleet.vision)}
    language = {
        f"language{n}": LanguageWorker(env, shared or Host(None), costs, traffic, fleet.kv_bytes, counts)
        for n in range(fleet.language)
    }
    model = _Model(env, costs, traffic, counts, vision, language, Lru(fleet.store_bytes))
    env.process(model.arrive(requests))
    if deaths is not None:
        env.process(model.die(deaths))
    env.run()
    return Report(model.served, env.now, counts, fleet)


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]
