"""Which worker a request goes to. Pure: no sockets, no clock.

Rendezvous hashing (Thaler and Ravishankar, 1998) gives every key its own order of workers, in which a worker that
joins or leaves moves only its own keys. Bounded loads (Mirrokni, Thorup and Zadimoghaddam, arXiv 1608.01350) let a key
overflow to the next of its workers when the first has more than its share.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

# A worker may have this much more than its share of the running requests.
LOAD_FACTOR = 1.25
# The part of a full share that a worker has in the moment when it joins or comes back.
LEAST_WEIGHT = 0.1


def rendezvous(key: bytes, addresses: Sequence[str]) -> tuple[str, ...]:
    """The workers in this key's order of preference."""
    return tuple(sorted(addresses, key=lambda address: (_weight(key, address), address), reverse=True))


def _weight(key: bytes, address: str) -> bytes:
    return hashlib.blake2b(key, digest_size=8, person=b"rendezvous", salt=_salt(address)).digest()


def _salt(address: str) -> bytes:
    return hashlib.blake2b(address.encode(), digest_size=16).digest()


def ramp(age_s: float | None, slow_start_s: float) -> float:
    """The part of a full share for a worker that has been well for so long; None: it is not known to be well."""
    if slow_start_s <= 0:
        return 1.0
    return min(1.0, max(LEAST_WEIGHT, (age_s or 0.0) / slow_start_s))


def bounded(
    order: Sequence[str],
    running: Mapping[str, int],
    weights: Mapping[str, float] | None = None,
    *,
    is_new: bool = False,
) -> tuple[str, ...]:
    """The same workers: those with room for one more request first, each part in its order.

    `running` is the number of requests that each worker has now, `weights` what part of a full share each may have; 1
    where nothing is said. Room is LOAD_FACTOR times a worker's share, rounded up, of what would be running with this
    request: a worker with little to do has room for one whatever its weight, so keys stay where they are. For a key
    that `is_new`, with nothing to stay for, it is the share alone.
    """
    if not order:
        return ()
    weighed = weights or {}
    total = sum(running.get(address, 0) for address in order) + 1
    each = total / sum(weighed.get(address, 1.0) for address in order)

    def room(address: str) -> float:
        share = each * weighed.get(address, 1.0)
        return share if is_new else math.ceil(LOAD_FACTOR * share)

    return _partition(order, [address for address in order if running.get(address, 0) < room(address)])


def least_loaded(
    addresses: Sequence[str], running: Mapping[str, int], weights: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """The workers by how little they would have to do, for a request that no worker is better placed for."""
    weighed = weights or {}
    return tuple(sorted(addresses, key=lambda each: (running.get(each, 0) + 1) / weighed.get(each, 1.0)))


def reachable_first(order: Sequence[str], unreachable: Collection[str]) -> tuple[str, ...]:
    """The same workers: those not known to be unreachable first, each part in its order."""
    return _partition(order, [address for address in order if address not in unreachable])


def _partition(order: Sequence[str], first: Sequence[str]) -> tuple[str, ...]:
    chosen = set(first)
    return (*first, *(address for address in order if address not in chosen))
