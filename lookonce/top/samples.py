"""Prometheus' text read, and two readings compared: rates, shares and quantiles. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scrape:
    """Every sample of one reading."""

    at_s: float
    samples: tuple[tuple[str, Labels, float], ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 where there are none."""
        return sum(value for found, has, value in self.samples if found == name and _has(has, labels))

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """A histogram's cumulated counts by upper bound, summed over all its series with these labels."""
        counts: dict[float, float] = {}
        for found, has, value in self.samples:
            if found == f"{name}_bucket" and _has(has, labels):
                bound = float(has["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return counts

    def where(self, label: str, beginning: str) -> "Scrape":
        """Without the samples whose label begins otherwise."""
        kept = (each for each in self.samples if each[1].get(label, beginning).startswith(beginning))
        return Scrape(self.at_s, tuple(kept))

    def values_of(self, label: str, name: str, **labels: str) -> tuple[str, ...]:
        """The different values that a label of a metric has, in order."""
        return tuple(sorted({has[label] for found, has, _ in self.samples if found == name and _has(has, labels)}))


def read(text: str, at_s: float) -> Scrape:
    """A reading taken at a moment. Raises ValueError where the text is not Prometheus'."""
    families = text_string_to_metric_families(text)
    return Scrape(at_s, tuple((each.name, each.labels, each.value) for family in families for each in family.samples))


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two readings."""

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.after.at_s - self.before.at_s

    def rise(self, name: str, **labels: str) -> float:
        """How much a counter rose; all of it where it began anew meanwhile."""
        before, after = self.before.total(name, **labels), self.after.total(name, **labels)
        return after - before if after >= before else after

    def rate(self, name: str, **labels: str) -> float:
        """The same a second."""
        return self.rise(name, **labels) / self.seconds if self.seconds > 0 else 0.0

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """A histogram's quantile over this time, or since the start where nothing came in it; None where nothing did.

        Interpolated within its bucket, as PromQL's histogram_quantile does.
        """
        after, before = self.after.buckets(name, **labels), self.before.buckets(name, **labels)
        new = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
        return quantile(share, new if new.get(inf, 0.0) > 0 else after)


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The quantile of cumulated counts by upper bound; None where there is nothing in them."""
    total = buckets.get(inf, 0.0)
    if total <= 0:
        return None
    bounds = [(0.0, 0.0), *sorted(buckets.items())]
    wanted = share * total
    for (low, below), (high, up_to) in pairwise(bounds):
        if up_to >= wanted and up_to > below:
            return low if high == inf else low + (high - low) * (wanted - below) / (up_to - below)
    return None


def _has(labels: Labels, wanted: Labels) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())
