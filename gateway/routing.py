"""Which worker a request goes to. Pure: no sockets, no clock.

Rendezvous hashing (Thaler and Ravishankar, 1998) gives every key its own order of workers, in which a worker that
joins or leaves moves only its own keys.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence

# What computing an image's prefix counts as, in questions: so many, and this part of what workers have on average, for
# the more they have the more they differ by chance, and the less they can spare.
PREFIX_QUESTIONS = 8
PREFIX_PART = 0.5
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


def least_loaded(
    addresses: Sequence[str],
    running: Mapping[str, int],
    weights: Mapping[str, float] | None = None,
    prefixed: Collection[str] = (),
) -> tuple[str, ...]:
    """The workers by what they have to do before they can answer a request, the best first; equal ones in their order.

    `running` is the number of questions that each worker has now, `weights` what part of a full share each may have; 1
    where nothing is said. Those that are not `prefixed` have the request's image before that, which counts as so many
    questions more.
    """
    weighed = weights or {}
    mean = sum(running.get(address, 0) for address in addresses) / max(len(addresses), 1)
    prefix = PREFIX_QUESTIONS + PREFIX_PART * mean

    def load(address: str) -> float:
        own = (running.get(address, 0) + 1) / weighed.get(address, 1.0)
        return own if address in prefixed else own + prefix

    return tuple(sorted(addresses, key=load))


def reachable_first(order: Sequence[str], unreachable: Collection[str]) -> tuple[str, ...]:
    """The same workers: those not known to be unreachable first, each part in its order."""
    return _partition(order, [address for address in order if address not in unreachable])


def _partition(order: Sequence[str], first: Sequence[str]) -> tuple[str, ...]:
    chosen = set(first)
    return (*first, *(address for address in order if address not in chosen))
