"""Which language workers have just said that they have no room, so that more of the same need not ask to hear it again.

The workers alone decide who gets a place. What one said counts until a place of its becomes free, as far as this
gateway can see, or a moment has passed: other gateways' questions end too. Pure but for the clock that it is given.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rpc.errors import Overloaded

# Full queues hold more work than this, so that no worker runs dry meanwhile.
REMEMBERED_S = 0.2


@dataclass(frozen=True, slots=True)
class _Refusal:
    """So many questions of one tenant were too many, as the error told. It counts until then."""

    count: int
    error: Overloaded
    until: float


class Fullness:
    """What each worker said last to each tenant that it had no room for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refusals: defaultdict[str, dict[str, _Refusal]] = defaultdict(dict)

    def refused(self, address: str, tenant: str, count: int, error: Overloaded) -> None:
        """A worker had no room for so many questions of a tenant."""
        now = self._clock()
        before = self._refusals[address].get(tenant)
        least = count if before is None or before.until <= now else min(before.count, count)
        self._refusals[address][tenant] = _Refusal(least, error, now + REMEMBERED_S)

    def freed(self, address: str) -> None:
        """A question of a worker has ended, or the worker has left: what it said no longer counts."""
        self._refusals.pop(address, None)

    def refusal(self, addresses: Iterable[str], tenant: str, count: int = 1) -> Overloaded | None:
        """What the workers there would say to so many questions of a tenant; None where one of them may have room."""
        now, error = self._clock(), None
        for address in addresses:
            said = self._refusals[address].get(tenant) if address in self._refusals else None
            if said is None or said.until <= now or count < said.count:
                return None
            error = said.error
        return error
