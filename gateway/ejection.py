"""Which workers are asked last because their calls fail. Pure: told of outcomes and of the time, it only decides.

After Envoy's outlier detection: a worker that fails again and again is left alone for a while that doubles each time,
never more than half of the workers at once. When its while is over it is on probation: one failure ejects it again,
one success ends that.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

# The part of a worker's last calls that may fail without its being ejected, and how many of them are looked at.
MOST_FAILED = 0.5
WINDOW = 20
# A worker is never left alone for longer.
MOST_EJECTED_S = 300.0


class Reason(StrEnum):
    """Why a worker was ejected."""

    IN_A_ROW = "in_a_row"
    PART = "part"
    PROBATION = "probation"


@dataclass(slots=True)
class _Record:
    """How a worker's last calls went. True in `outcomes` is a failure; `times` counts ejections in a row."""

    in_a_row: int = 0
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    times: int = 0
    until: float | None = None
    on_probation: bool = False


class Ejections:
    """What is remembered of the workers of one half.

    `most_in_a_row` failures in a row eject a worker, for `first_s` seconds the first time; with 0 nobody ever is.
    """

    def __init__(self, most_in_a_row: int, first_s: float) -> None:
        self._most_in_a_row = most_in_a_row
        self._first_s = first_s
        self._records: dict[str, _Record] = {}

    def succeeded(self, address: str, now: float) -> None:
        """A call was answered. One that began before the worker was ejected does not bring it back."""
        record = self._records.setdefault(address, _Record())
        record.in_a_row = 0
        record.outcomes.append(False)
        if record.on_probation and not _is_out(record, now):
            record.on_probation = False
        elif record.until is not None and now - record.until > self._while_s(record.times):
            # It has been well for as long again as it was left alone.
            record.times, record.until = 0, None

    def failed(self, address: str, workers: Collection[str], now: float) -> Reason | None:
        """A call failed; why the worker is ejected for it, None where it is not. `workers` are all there are."""
        record = self._records.setdefault(address, _Record())
        record.in_a_row += 1
        record.outcomes.append(True)
        reason = None if _is_out(record, now) else self._reason(record)
        if reason is None or not self._may_eject(address, workers, now):
            return None
        record.times += 1
        record.until = now + self._while_s(record.times)
        record.on_probation = True
        record.in_a_row = 0
        record.outcomes.clear()
        return reason

    def ejected(self, now: float) -> set[str]:
        """The workers that are left alone now."""
        return {address for address, record in self._records.items() if _is_out(record, now)}

    def back_since(self, address: str) -> float | None:
        """When the last ejection of a worker ended, or will; None where there was none lately."""
        record = self._records.get(address)
        return None if record is None else record.until

    def forget(self, address: str) -> None:
        """A worker has left; one that comes later to its address begins anew."""
        self._records.pop(address, None)

    def _reason(self, record: _Record) -> Reason | None:
        if record.on_probation:
            return Reason.PROBATION
        if record.in_a_row >= self._most_in_a_row:
            return Reason.IN_A_ROW
        if len(record.outcomes) == WINDOW and sum(record.outcomes) > MOST_FAILED * WINDOW:
            return Reason.PART
        return None

    def _may_eject(self, address: str, workers: Collection[str], now: float) -> bool:
        out = self.ejected(now).intersection(workers) | {address}
        return self._first_s > 0 and 2 * len(out) <= len(workers)

    def _while_s(self, times: int) -> float:
        return float(min(MOST_EJECTED_S, self._first_s * 2.0 ** min(max(times, 1) - 1, 30)))


def _is_out(record: _Record, now: float) -> bool:
    return record.until is not None and now < record.until
