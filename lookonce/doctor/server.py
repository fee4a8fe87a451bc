"""The gateway, through its own /ready."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lookonce.client import Client
from lookonce.doctor.clocks import Reading
from lookonce.doctor.findings import Finding, fail, ok, warn
from lookonce.errors import LookonceError

MEND = "see to the workers that it names"


@dataclass(frozen=True, slots=True)
class ServerExamined:
    """What is right and wrong about a gateway.

    Attributes:
        findings: In words.
        body_bytes: The largest request that it takes; None where it did not say.
        clock: What its clock said; None likewise.
    """

    findings: tuple[Finding, ...]
    body_bytes: int | None = None
    clock: Reading | None = None


def examine_server(client: Client) -> ServerExamined:
    """Asks the server."""
    subject = f"gateway {client.server}"
    asked = time.time()
    try:
        state = client.ready()
    except LookonceError as exc:
        return ServerExamined((fail(subject, str(exc), "start it, or correct --server"),))
    clock = Reading(subject, float(state.get("now") or 0), asked, time.time())
    return ServerExamined(tuple(judge_ready(subject, state)), state.get("body_bytes"), clock)


def judge_ready(subject: str, state: dict[str, Any]) -> Iterator[Finding]:
    """What /ready said."""
    problems = [
        f"{half} {worker['address']}: {worker['problem'] or 'not paired'}"
        for half in ("vision", "language")
        for worker in state.get(half, ())
        if not worker["paired"]
    ]
    told = "; ".join(problems) or "a worker finds its store unwell"
    match state["status"]:
        case "ready":
            yield ok(subject, "ready: both halves are paired")
        case "degraded":
            yield warn(subject, f"degraded, images that are known are answered ({told})", MEND)
        case _:
            yield fail(subject, f"not ready ({told})", MEND)
