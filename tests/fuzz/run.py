"""The run: so many inputs of all kinds, by several clients at once, with good requests between."""

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.target import Breach, Target, open_target

MIB = 1024 * 1024
NUM_CLIENTS = 4
# Between two good requests.
BATCH = 250
# Until pools and caches have grown to what they will be: oneDNN alone keeps a product for each of a thousand shapes.
WARM_UP = 500
WARM_UP_PART = 4
# What may remain beyond that.
GROWTH_BYTES = 96 * MIB
SPARE_DESCRIPTORS = 16
SPARE_THREADS = 4


@dataclass(frozen=True, slots=True)
class Fed:
    """What became of one input.

    Attributes:
        kind: Of input.
        number: With kind and seed it says which input.
        outcome: "answered", a status, or "breach".
        seconds: Until the outcome.
        told: Of a breach, in words.
    """

    kind: str
    number: int
    outcome: str
    seconds: float
    told: str = ""


@dataclass(slots=True)
class Fuzzed:
    """One run.

    Attributes:
        fed: Every input.
        growth_bytes: By process, memory at the end beyond that after the warm-up.
        breaches: What was promised and not kept, in words.
    """

    fed: list[Fed] = field(default_factory=list)
    growth_bytes: dict[str, int] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)

    def tally(self) -> dict[str, Counter[str]]:
        """Outcomes by kind."""
        found: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
        for each in self.fed:
            found[each.kind][each.outcome] += 1
        return found


def fuzz(num_inputs: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Fuzzed:
    """Feeds so many inputs to a deployment of its own."""
    fuzzed = Fuzzed()
    with tempfile.TemporaryDirectory() as name, open_target(Path(name)) as target:
        _note(fuzzed, "before the first input", target.check_well)
        plan, warm_up = list(planned(num_inputs, seed)), max(WARM_UP, num_inputs // WARM_UP_PART)
        _feed(target, plan[:warm_up], seed, fuzzed, progress)
        memory, in_use = target.resident_bytes(), target.in_use()
        _feed(target, plan[warm_up:], seed, fuzzed, progress)
        # Connections of clients that left take a moment.
        time.sleep(2)
        fuzzed.growth_bytes = {name: after - memory[name] for name, after in target.resident_bytes().items()}
        fuzzed.breaches += _left(fuzzed.growth_bytes, in_use, target.in_use())
    fuzzed.breaches += [f"{each.kind}:{each.number}: {each.told}" for each in fuzzed.fed if each.outcome == "breach"]
    return fuzzed


def replay(kind: str, number: int, seed: int) -> Fed:
    """Feeds one input again."""
    with tempfile.TemporaryDirectory() as name, open_target(Path(name)) as target:
        return _feed_one(target, kind, number, seed)


def planned(num_inputs: int, seed: int) -> Iterator[tuple[str, int]]:
    """Kinds in their shares and a random order, numbered."""
    names = [name for name, (_, share) in KINDS.items() for _ in range(share)]
    chance = random.Random(seed)
    # Whatever the number, every kind comes.
    first = list(KINDS)
    for number in range(num_inputs):
        yield (first[number] if number < len(first) else chance.choice(names)), number


def _feed(
    target: Target, plan: list[tuple[str, int]], seed: int, fuzzed: Fuzzed, progress: Callable[[int], None]
) -> None:
    lock = threading.Lock()

    def feed(item: tuple[str, int]) -> None:
        fed = _feed_one(target, *item, seed)
        with lock:
            fuzzed.fed.append(fed)
            progress(len(fuzzed.fed))

    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        for start in range(0, len(plan), BATCH):
            batch = plan[start : start + BATCH]
            list(clients.map(feed, batch))
            _note(fuzzed, f"after input {batch[-1][1]}", target.check_well)


def _feed_one(target: Target, kind: str, number: int, seed: int) -> Fed:
    began = time.monotonic()
    try:
        outcome, told = KINDS[kind][0](random.Random(f"{seed}:{kind}:{number}"), target), ""
    except Breach as breach:
        outcome, told = "breach", str(breach)
    except Exception as exc:  # noqa: BLE001 - whatever it is, no answer came
        outcome, told = "breach", f"{type(exc).__name__}: {exc}"
    return Fed(kind, number, outcome, time.monotonic() - began, told)


def _note(fuzzed: Fuzzed, when: str, check: Callable[[], None]) -> None:
    try:
        check()
    except Breach as breach:
        fuzzed.breaches.append(f"{when}: {breach}")


def _left(
    growth: dict[str, int], before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]
) -> Iterator[str]:
    for name, grown in growth.items():
        if grown > GROWTH_BYTES:
            yield f"{name} takes {grown / MIB:.0f} MiB more than before"
        for what, place, spare in (("descriptors", 0, SPARE_DESCRIPTORS), ("threads", 1, SPARE_THREADS)):
            if after[name][place] > before[name][place] + spare:
                yield f"{name} has {after[name][place]} {what}, and had {before[name][place]}"
