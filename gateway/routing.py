"""Which worker a request goes to. Pure: no sockets, no clock.

Rendezvous hashing (Thaler and Ravishankar, 1998) gives every key its own order of workers, in which a worker that
joins or leaves moves only its own keys. Bounded loads (Mirrokni, Thorup and Zadimoghaddam, arXiv 1608.01350) let a key
overflow to the next of its workers when the first has more than its share.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

# A worker may have this much more than an equal share of the running requests.
LOAD_FACTOR = 1.25


def rendezvous(key: bytes, addresses: Sequence[str]) -> tuple[str, ...]:
    """The workers in this key's order of preference."""
    return tuple(sorted(addresses, key=lambda address: (_weight(key, address), address), reverse=True))


def _weight(key: bytes, address: str) -> bytes:
    return hashlib.blake2b(key, digest_size=8, person=b"rendezvous", salt=_salt(address)).digest()


def _salt(address: str) -> bytes:
    return hashlib.blake2b(address.encode(), digest_size=16).digest()


def bounded(order: Sequence[str], running: Mapping[str, int]) -> tuple[str, ...]:
    """The same workers: those with room for one more request first, each part in its order.

    `running` is the number of requests that each worker has now. Room is LOAD_FACTOR times an equal share, rounded up,
    of what would be running with this request.
    """
    if not order:
        return ()
    total = sum(running.get(address, 0) for address in order)
    most = math.ceil(LOAD_FACTOR * (total + 1) / len(order))
    return _partition(order, [address for address in order if running.get(address, 0) < most])


def least_loaded(addresses: Sequence[str], running: Mapping[str, int]) -> tuple[str, ...]:
    """The workers by how little they have to do, for a request that no worker is better placed for."""
    return tuple(sorted(addresses, key=lambda address: running.get(address, 0)))


def reachable_first(order: Sequence[str], unreachable: Collection[str]) -> tuple[str, ...]:
    """The same workers: those not known to be unreachable first, each part in its order."""
    return _partition(order, [address for address in order if address not in unreachable])


def _partition(order: Sequence[str], first: Sequence[str]) -> tuple[str, ...]:
    chosen = set(first)
    return (*first, *(address for address in order if address not in chosen))
