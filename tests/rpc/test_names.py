"""Workers by name: what a look-up changes, and what it does not."""

import logging
from collections.abc import Sequence

import pytest

from rpc import names as names_module
from rpc.names import Names, at_port, is_name, split


class Zone:
    """A resolver whose answer a test sets: addresses by host, or an error."""

    def __init__(self, **answers: Sequence[str] | Exception) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_name_is_told_from_an_address() -> None:
    """Only `dns:` makes a name of it; host and port come apart."""
    assert is_name("dns:vision.internal:50051")
    assert not is_name("vision.internal:50051")
    assert split("dns:vision.internal:50051") == ("vision.internal", 50051)


async def test_a_mixed_list_has_the_given_and_the_found() -> None:
    """Addresses stand as they were given, a name's after a look-up, each once, with the name for its certificate."""
    zone = Zone(v=["10.0.0.2", "10.0.0.1", "10.0.0.1"], w=["10.0.0.1"])
    names = Names(("a:1", "dns:v:7", "dns:w:7"), zone.resolve)
    assert names.has_names
    assert names.addresses == {"a:1": None}
    assert names.unresolved == ("dns:v:7", "dns:w:7")
    await names.look_up()
    assert names.addresses == {"a:1": None, "10.0.0.1:7": "v", "10.0.0.2:7": "v"}
    assert names.unresolved == ()
    assert sorted(zone.asked) == [("v", 7), ("w", 7)]


async def test_a_later_answer_counts() -> None:
    """Who is not in the last answer has left, who is new has joined."""
    zone = Zone(v=["10.0.0.1", "10.0.0.2"])
    names = Names(("dns:v:7",), zone.resolve)
    await names.look_up()
    zone.answers["v"] = ["10.0.0.2", "10.0.0.3"]
    await names.look_up()
    assert list(names.addresses) == ["10.0.0.2:7", "10.0.0.3:7"]


@pytest.mark.parametrize("failure", [OSError("no such host"), TimeoutError(), UnicodeError("label too long"), []])
async def test_a_failing_resolver_keeps_the_last_answer(
    failure: Exception | list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An error, a time-out or an empty answer changes nothing; it is told once, and once that it is over."""
    zone = Zone(v=["10.0.0.1"])
    names = Names(("dns:v:7",), zone.resolve)
    await names.look_up()
    zone.answers["v"] = failure
    with caplog.at_level(logging.INFO, logger=names_module.__name__):
        for _ in range(3):
            await names.look_up()
        assert list(names.addresses) == ["10.0.0.1:7"]
        zone.answers["v"] = ["10.0.0.9"]
        await names.look_up()
    assert list(names.addresses) == ["10.0.0.9:7"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_one_failing_name_does_not_hold_the_others() -> None:
    """Each name is looked up for itself."""
    names = Names(("dns:v:7", "dns:w:7"), Zone(v=OSError("no such host"), w=["10.0.0.1"]).resolve)
    await names.look_up()
    assert list(names.addresses) == ["10.0.0.1:7"]
    assert names.unresolved == ("dns:v:7",)


def test_a_worker_of_both_families_counts_once() -> None:
    """Where there are IPv4 addresses only those count; IPv6 alone is written in brackets; there is a bound."""
    assert at_port(["::1", "127.0.0.1"], 7) == ("127.0.0.1:7",)
    assert at_port(["fd00::2", "fd00::1"], 7) == ("[fd00::1]:7", "[fd00::2]:7")
    assert len(at_port([f"10.0.{high}.{low}" for high in range(4) for low in range(200)], 7)) == 256


async def test_the_systems_resolver_finds_loopback() -> None:
    """Without a resolver of its own a name is looked up as the system does it."""
    names = Names(("dns:localhost:7",))
    await names.look_up()
    assert names.addresses == {"127.0.0.1:7": "localhost"}
