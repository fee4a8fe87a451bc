"""What the doctor says of a gateway."""

import httpx
import pytest

from lookonce.client import Client
from lookonce.doctor.findings import Level
from lookonce.doctor.server import examine_server

DOWN = {"address": "a:1", "reachable": False, "paired": False, "problem": "the vision worker does not answer"}
UP = {"address": "b:2", "reachable": True, "paired": True, "problem": None}


@pytest.mark.parametrize(
    ("status", "vision", "level"),
    [
        ("ready", UP, Level.OK),
        ("degraded", DOWN, Level.WARN),
        ("degraded", UP, Level.WARN),
        ("unready", DOWN, Level.FAIL),
    ],
)
def test_readiness_is_judged(status: str, vision: dict[str, object], level: Level) -> None:
    """A ready gateway is ok, a degraded one warns, an unready one fails; what is wrong with which worker is told."""
    state = {"status": status, "missing": [], "vision": [vision], "language": [UP]}
    client = Client("http://test", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=state)))
    [finding] = examine_server(client).findings
    assert finding.level is level
    assert ("vision a:1: the vision worker does not answer" in finding.message) == (vision is DOWN)


def test_a_server_that_refuses_us_fails() -> None:
    """A missing token is told as the server tells it."""
    refusal = httpx.Response(401, json={"error": {"message": "a token is needed"}})
    [finding] = examine_server(Client("http://test", transport=httpx.MockTransport(lambda _: refusal))).findings
    assert finding.level is Level.FAIL
    assert "a token is needed" in finding.message
