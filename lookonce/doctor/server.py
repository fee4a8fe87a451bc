"""The gateway, through its own /ready."""

from collections.abc import Iterator
from typing import Any

from lookonce.client import Client
from lookonce.doctor.findings import Finding, fail, ok, warn
from lookonce.errors import LookonceError

MEND = "see to the workers that it names"


def examine_server(client: Client) -> list[Finding]:
    """What is right and wrong about the server."""
    subject = f"gateway {client.server}"
    try:
        return list(judge_ready(subject, client.ready()))
    except LookonceError as exc:
        return [fail(subject, str(exc), "start it, or correct --server")]


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
