"""How often each tenant may ask: a bucket of tokens a tenant. Pure but for the clock that it is given."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.settings import RateSettings

MINUTE_S = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class Rates:
    """Lets each tenant ask `per_minute` in the long run, and `burst` at once. There are as many as tenants."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, tenant: str) -> float:
        """Counts a request, and returns 0; or, where it is one too many, the seconds after which it is none."""
        settings = self._settings
        if settings.per_minute is None:
            return 0.0
        now, per_second = self._clock(), settings.per_minute / MINUTE_S
        bucket = self._buckets.setdefault(tenant, _Bucket(settings.burst, now))
        bucket.tokens = min(settings.burst, bucket.tokens + (now - bucket.filled) * per_second)
        bucket.filled = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / per_second
        bucket.tokens -= 1
        return 0.0
