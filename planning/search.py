"""The cheapest fleet that keeps a promise."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from planning.costs import Costs
from planning.fleet import Deaths, Fleet, Report, simulate
from planning.traffic import Traffic, arrivals

# Requests of one trial: enough for a 95th percentile, few enough for seconds.
TRIAL_REQUESTS = 2000
MOST_TRIAL_S = 600.0
# Workers are never planned to be busier than this.
MOST_USE = 0.9
MOST_WORKERS = 512
# Fewer are tried one by one.
MANY = 16


HALVES = ("vision", "language")

Run = Callable[[Fleet], Report]


class NoFleet(ValueError):
    """No number of workers keeps the promise; the message says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is promised, and what workers cost.

    Attributes:
        first_token_s: 95 of 100 requests have the first token of all their questions within this.
        vision_price: Of a vision worker for an hour, in any currency.
        language_price: Of a language worker.
        kv_bytes: For kept prefixes in each language worker.
        store_bytes: For entries.
    """

    first_token_s: float
    vision_price: float = 1.0
    language_price: float = 1.0
    kv_bytes: float = 1 << 30
    store_bytes: float = 64e9

    def price(self, fleet: Fleet) -> float:
        """Of a fleet for an hour."""
        return fleet.vision * self.vision_price + fleet.language * self.language_price


def keeps(report: Report, wish: Wish) -> bool:
    """Whether the promise is kept and nobody is too busy."""
    within = report.first_token_s(95) <= wish.first_token_s
    return within and max(report.vision_use, report.language_use) <= MOST_USE


def with_deaths(costs: Costs, traffic: Traffic, fleet: Fleet, part: float) -> Report:
    """One run in which this part of each half dies after a quarter of it; with 0 none does."""
    seconds = min(TRIAL_REQUESTS / traffic.rate, MOST_TRIAL_S)
    deaths = Deaths(seconds / 4, part) if part else None
    return simulate(costs, traffic, fleet, list(arrivals(traffic, seconds)), deaths)


def cheapest(costs: Costs, traffic: Traffic, wish: Wish, dying: float = 0.0) -> Report:
    """The run of the cheapest fleet found: from the least that the work needs the busier half grows, then both shrink.

    `dying`: the part of each half that dies in the middle of the run; the promise is to be kept all the same.

    Raises:
        NoFleet: even alone a request takes longer, or more workers than `MOST_WORKERS` would be needed.
    """
    _check_possible(costs, traffic, wish)
    fleet = _least(costs, traffic, wish)
    report = with_deaths(costs, traffic, fleet, dying)
    while not keeps(report, wish):
        fleet = _grown(fleet, report)
        if max(fleet.vision, fleet.language) > MOST_WORKERS:
            raise NoFleet(f"more than {MOST_WORKERS} workers of a half would be needed")
        report = with_deaths(costs, traffic, fleet, dying)

    def run(fleet: Fleet) -> Report:
        return with_deaths(costs, traffic, fleet, dying)

    return _exchanged(_trimmed(report, wish, run), wish, run)


def _check_possible(costs: Costs, traffic: Traffic, wish: Wish) -> None:
    alone = replace(traffic, rate=1e-3, num_images=0)
    fleet = Fleet(1, 1, wish.kv_bytes, wish.store_bytes)
    [first, *_] = list(arrivals(alone, 1e5))
    needed = simulate(costs, alone, fleet, [first]).first_token_s(95)
    if needed > wish.first_token_s:
        raise NoFleet(f"a request about a new image takes {needed:.2f} s to its first tokens even alone")


def _least(costs: Costs, traffic: Traffic, wish: Wish) -> Fleet:
    """As many of each as the work alone keeps busy, were every image new and asked about once."""
    new = min(1.0, traffic.num_images / TRIAL_REQUESTS) if traffic.num_images else 1.0
    vision_s = costs.encode(traffic.image_tokens) * new
    rows = traffic.questions * traffic.question_tokens
    language_s = costs.prompt(rows) / 2
    count = [max(1, math.floor(traffic.rate * seconds)) for seconds in (vision_s, language_s)]
    return Fleet(count[0], count[1], wish.kv_bytes, wish.store_bytes)


def _grown(fleet: Fleet, report: Report) -> Fleet:
    """One more of the half that is busier; of many half as many more: what is too much is taken away later."""
    half = "vision" if report.vision_use >= report.language_use else "language"
    count = getattr(fleet, half)
    more = count + (1 if count < MANY else count // 2)
    return replace(fleet, **{half: min(more, max(MOST_WORKERS, count + 1))})


def _trimmed(report: Report, wish: Wish, run: Run) -> Report:
    """The same with every worker taken away that is not needed, the dearer half first."""
    halves = sorted(HALVES, key=lambda half: getattr(wish, f"{half}_price"), reverse=True)
    for half in halves:
        report = _fewest(half, report, wish, run)
    return report


def _exchanged(report: Report, wish: Wish, run: Run) -> Report:
    """The same with one more of a half, wherever that saves more of the other than it costs."""
    for half, other in (HALVES, HALVES[::-1]):
        more = run(replace(report.fleet, **{half: getattr(report.fleet, half) + 1}))
        found = _fewest(other, more, wish, run) if keeps(more, wish) else report
        if wish.price(found.fleet) < wish.price(report.fleet):
            return _exchanged(found, wish, run)
    return report


def _fewest(half: str, report: Report, wish: Wish, run: Run) -> Report:
    """A run with fewer workers of a half than that one, which keeps the promise: with one fewer still it is broken.

    One is taken away, then two, four and so on until it is broken; then the number is looked for between the last two.
    """
    stride, broken = 1, 0
    while (count := getattr(report.fleet, half)) - broken > 1:
        fewer = (count + broken) // 2 if broken else max(1, count - stride)
        tried = run(replace(report.fleet, **{half: fewer}))
        if keeps(tried, wish):
            report, stride = tried, 2 * stride
        else:
            broken = fewer
    return report
