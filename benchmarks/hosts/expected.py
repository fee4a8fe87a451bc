"""What is expected of one host and of two, from what each part takes. Pure.

On one host, pictures are encoded and answered one after the other. On two, the second picture is encoded while the
first one crosses the link and is answered: three stages of a pipeline, of which the slowest sets the pace.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Encode; in the store: is it there, the lease, is it there now, put.
ROUND_TRIPS = 5
# TCP's payload of a full Ethernet frame, all of which a rate counts.
PAYLOAD = 1448 / 1514
# Two times that differ by less are called equal: repeats of one cell on one host differ by as much.
TIE = 0.07
LEAST_MBIT, MOST_MBIT = 1.0, 100_000.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Of one picture on one host.

    Attributes:
        encode_s: From the file to the entry in the store.
        answer_s: From there to the last answer.
        first_s: From there to the beginning of the first answer.
        up_bytes: That go to the vision host: the file.
        down_bytes: That come from there: the entry, and the file to keep.
    """

    encode_s: float
    answer_s: float
    up_bytes: int
    down_bytes: int
    first_s: float = 0.0

    def crossing_s(self, mbit: float, delay_s: float) -> float:
        """Seconds that the link adds to one picture."""
        return (self.up_bytes + self.down_bytes) * 8 / (mbit * PAYLOAD * 1e6) + 2 * delay_s * ROUND_TRIPS

    def one_host_s(self, pictures: int) -> float:
        """Until the last answer, with everything on one host."""
        return pictures * (self.encode_s + self.answer_s)

    def two_hosts_s(self, pictures: int, mbit: float, delay_s: float = 0.0) -> float:
        """Until the last answer, with the halves on two hosts."""
        stages = (self.encode_s, self.crossing_s(mbit, delay_s), self.answer_s)
        return sum(stages) + (pictures - 1) * max(stages)

    def two_hosts_first_s(self, pictures: int, mbit: float, delay_s: float = 0.0) -> float:
        """Until a picture's first answer begins, the mean over the pictures."""
        crossing_s = self.crossing_s(mbit, delay_s)
        return self.encode_s + crossing_s + self.first_s + (pictures - 1) / 2 * max(self.encode_s, crossing_s)


def crossing_mbit(ratio: Callable[[float], float]) -> float | None:
    """The rate from which two hosts are faster: where a ratio that falls with the rate is 1. None: at no rate.

    `LEAST_MBIT` stands for every rate.
    """
    if ratio(MOST_MBIT) >= 1:
        return None
    low, high = math.log(LEAST_MBIT), math.log(MOST_MBIT)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(math.exp(middle)) >= 1 else (low, middle)
    return math.exp(high)


def measured_crossing_mbit(points: Sequence[tuple[float, float]]) -> float | None:
    """The same between measured (rate, ratio) points, on the logarithm of the rate.

    Where already the lowest rate wins, that rate; None where the highest one does not. What is equal does not win.
    """
    points = sorted(points)
    if points[-1][1] >= 1 - TIE:
        return None
    last = max((place for place, (_, ratio) in enumerate(points) if ratio >= 1 - TIE), default=-1)
    if last < 0:
        return points[0][0]
    (low, above), (high, below) = points[last], points[last + 1]
    part = max(above - 1, 0.0) / (above - below)
    return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
