"""Who encodes an image that several vision workers are asked for at once: one does, the others wait for what it keeps.

A lease in the store, held by a value of the worker's own that changes each time it is renewed while it works. It is
there to save work alone: whoever cannot have it, for whatever reason, encodes without. A holder that died, and a lease
that lost its time to live, are waited for as long as one lease lasts: the value does not change. A value that does not
begin with its own key is damaged, and waited for not at all.
A worker has one encoding of an image at a time, so that a lease of its own is one that could not be given back.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from cache import CacheError, Store
from vision_server.metrics import AWAITED

# Between two looks at the store: at first, and at most.
FIRST_PAUSE_S = 0.01
MOST_PAUSE_S = 0.25
# A lease is renewed so often in its time.
RENEWALS = 3
# Others are waited for no longer than so many leases, also where one is renewed for ever.
MOST_LEASES = 20

Found = TypeVar("Found")


class Leases:
    """Leases in a store that workers share; without a store, or with `lease_s` 0, everybody's turn is now."""

    def __init__(self, store: Store | None, lease_s: float) -> None:
        self._store = store if lease_s > 0 else None
        self._lease_s = lease_s
        self._token = secrets.token_hex(8).encode()
        self._releasing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def turn(self, key: str, find: Callable[[], Awaitable[Found | None]]) -> AsyncIterator[Found | None]:
        """Gives None where the work is to be done within, or what another worker made meanwhile, as `find` finds it.

        `find` is asked again and again while somebody else holds the lease; it does not raise.
        """
        if self._store is None:
            yield None
            return
        is_held, found = await self._wait(self._store, key, find)
        if not is_held:
            yield found
            return
        renewing = asyncio.create_task(self._keep_renewing(self._store, key))
        try:
            yield found
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            # Whoever asked for the image does not wait for it: on a link with a delay it takes two ways there and back.
            releasing = asyncio.create_task(self._release(self._store, key))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)

    async def close(self) -> None:
        """Returns when every lease is given back that is over."""
        await asyncio.gather(*self._releasing, return_exceptions=True)

    async def _wait(
        self, store: Store, key: str, find: Callable[[], Awaitable[Found | None]]
    ) -> tuple[bool, Found | None]:
        """Whether the lease is held now, and what was found."""
        began, pause_s = time.monotonic(), FIRST_PAUSE_S
        seen, changed = b"", began
        while time.monotonic() < min(began + MOST_LEASES * self._lease_s, changed + self._lease_s):
            holder = await self._take(store, key)
            if holder is None:
                return False, None
            if holder.startswith(self._mine(key)):
                # The one before may have ended between the caller's last look and this.
                return True, await find()
            if not seen:
                AWAITED.inc()
            if holder != seen:
                seen, changed = holder, time.monotonic()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_PAUSE_S, self._lease_s / RENEWALS)
            found = await find()
            if found is not None:
                return False, found
        return False, None

    async def _take(self, store: Store, key: str) -> bytes | None:
        """The lease's value, which begins with ours where it is ours now; None where the store does not say."""
        try:
            is_put = await store.put_if_absent(key, self._mine(key), self._lease_s)
            if is_put is not False:
                return self._mine(key) if is_put else None
            # Nothing where it was over between the two looks: somebody's, and soon to be had.
            holder = bytes(await store.get(key) or _of(key))
            return holder if holder.startswith(_of(key)) else None
        except CacheError:
            return None

    def _mine(self, key: str) -> bytes:
        """What this worker's values of a lease begin with."""
        return _of(key) + self._token

    async def _keep_renewing(self, store: Store, key: str) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(self._lease_s / RENEWALS)
            with contextlib.suppress(CacheError):
                await store.put(key, b"%s:%d" % (self._mine(key), number), self._lease_s)

    async def _release(self, store: Store, key: str) -> None:
        """Gives the lease back, unless it was over and is another's now."""
        with contextlib.suppress(CacheError):
            if bytes(await store.get(key) or b"").startswith(self._mine(key)):
                await store.delete(key)


def _of(key: str) -> bytes:
    """What every value of a lease begins with."""
    return key.encode() + b"|"
