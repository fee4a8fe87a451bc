"""Clocks: how far each part's is from this host's. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lookonce.doctor.findings import Finding, ok, warn

# Beyond this, certificates and times of expiry are judged by another time than they were made at.
MAX_SKEW_S = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a part's clock said.

    Attributes:
        subject: Whose clock it is.
        told: Unix seconds that it said.
        asked: This host's Unix seconds when it was asked.
        heard: The same when the reply was there.
    """

    subject: str
    told: float
    asked: float
    heard: float

    @property
    def skew_s(self) -> float:
        """By how much it is ahead, at least, of this host's clock; negative: behind."""
        if self.asked <= self.told <= self.heard:
            return 0.0
        return self.told - (self.heard if self.told > self.heard else self.asked)


def judge_clocks(readings: Iterable[Reading]) -> Iterator[Finding]:
    """Each clock that is wrong beside this host's; one line where all agree. What tells no time is left out."""
    told = [reading for reading in readings if reading.told]
    wrong = [reading for reading in told if abs(reading.skew_s) > MAX_SKEW_S]
    for reading in wrong:
        way = "ahead of" if reading.skew_s > 0 else "behind"
        yield warn(
            reading.subject,
            f"its clock is {abs(reading.skew_s):.0f} s {way} this host's: certificates and expires_at are judged by it",
            "have both hosts set by NTP (chrony, systemd-timesyncd)",
        )
    if told and not wrong:
        yield ok("clocks", f"all {len(told)} agree with this host's within {MAX_SKEW_S:g} s")
