"""How often each tenant may ask."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.rates import Rates
from gateway.settings import RateSettings
from tests.gateway.conftest import StartLine


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_passes_and_then_the_rate() -> None:
    """As many as the burst pass at once; then one more each time that the rate allows it."""
    clock = Clock()
    rates = Rates(RateSettings(per_minute=60, burst=3), clock)
    assert [rates.take("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < rates.take("a") <= 1
    clock.now_s += 1
    assert rates.take("a") == 0
    assert rates.take("a") > 0
    clock.now_s += 3600
    assert [rates.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_tenants_have_their_own() -> None:
    """What one tenant has asked takes nothing from another."""
    rates = Rates(RateSettings(per_minute=1, burst=1), Clock())
    assert rates.take("a") == 0
    assert rates.take("a") > 0
    assert rates.take("b") == 0


def test_without_a_rate_everything_passes() -> None:
    """The default counts nothing."""
    rates = Rates(RateSettings(), Clock())
    assert not any(rates.take("a") for _ in range(10_000))


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 600), st.integers(1, 20))
def test_no_more_pass_than_burst_and_rate(waits: list[float], per_minute: int, burst: int) -> None:
    """However requests come, no more pass than the burst and what the rate gives in the time."""
    clock = Clock()
    began, rates, passed = clock.now_s, Rates(RateSettings(per_minute=per_minute, burst=burst), clock), 0
    for wait in waits:
        clock.now_s += wait
        passed += rates.take("a") == 0
    assert passed <= burst + (clock.now_s - began) * per_minute / 60 + 1e-6


@given(st.integers(1, 600))
def test_who_waits_as_told_passes(per_minute: int) -> None:
    """The seconds that a refusal names are enough."""
    clock = Clock()
    rates = Rates(RateSettings(per_minute=per_minute, burst=1), clock)
    rates.take("a")
    clock.now_s += rates.take("a") + 1e-6
    assert rates.take("a") == 0


async def test_one_too_many_is_429_with_retry_after(start_line: StartLine, tmp_path: Path) -> None:
    """It says when to come back; another tenant and /health are answered meanwhile."""
    tokens = tmp_path / "tokens"
    tokens.write_text("token-a a\ntoken-b b\n")
    line = await start_line(tokens_file=str(tokens), rates=RateSettings(per_minute=2, burst=1))

    async def get(path: str, token: str) -> tuple[int, str | None]:
        reply = await line.client.get(path, headers={"Authorization": f"Bearer {token}"})
        return reply.status_code, reply.headers.get("retry-after")

    assert (await get("/v1/models", "token-a"))[0] == 200
    status, retry_after = await get("/v1/models", "token-a")
    assert status == 429
    assert 1 <= int(retry_after or 0) <= 30
    assert (await get("/v1/models", "token-b"))[0] == 200
    assert (await get("/health", "token-a"))[0] == 200
