"""The whole examination: everybody who was named is asked, and what they say is judged."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookonce import workers
from lookonce.client import Client
from lookonce.doctor.findings import Finding, Level, any_fail
from lookonce.doctor.halves import (
    LanguageReplies,
    VisionReplies,
    judge_language,
    judge_pair,
    judge_vision,
    largest_entry_bytes,
)
from lookonce.doctor.server import examine_server
from lookonce.doctor.store import examine_store
from rpc.errors import RpcError
from rpc.peers import Identity, PeerSettings

CALL_S = 5.0
STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Targets:
    """Who is examined: what is empty or None is left out."""

    vision: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    cache: str | None = None
    server: str | None = None
    model: Path | None = None
    peers: PeerSettings = field(default_factory=PeerSettings)


def examine(targets: Targets, token: str | None = None) -> list[Finding]:
    """Every finding, the parts in the order of a request."""
    visions, languages = asyncio.run(_ask_workers(targets))
    findings: list[Finding] = []
    if targets.server is not None:
        with Client(targets.server, token) as client:
            findings += examine_server(client)
    findings += [*judge_vision(visions), *judge_language(languages), *judge_pair(visions, languages)]
    if targets.cache is not None:
        findings += examine_store(targets.cache, largest_entry_bytes(visions))
    if targets.model is not None:
        findings += _examine_model(targets.model, visions, languages)
    return findings


def _examine_model(model_dir: Path, visions: VisionReplies, languages: LanguageReplies) -> list[Finding]:
    # Here, for it imports torch, which nothing else of the doctor's needs.
    from lookonce.doctor.model import examine_model

    return list(examine_model(model_dir, visions, languages))


async def _ask_workers(targets: Targets) -> tuple[VisionReplies, LanguageReplies]:
    identity = workers.own_identity(targets.peers)
    return await asyncio.gather(
        _ask_all(targets.vision, workers.vision_info, identity),
        _ask_all(targets.language, workers.language_info, identity),
    )


async def _ask_all(
    addresses: Sequence[str], ask: Callable[[str, float, Identity], Awaitable[Reply]], identity: Identity
) -> dict[str, Reply | RpcError]:
    async def one(address: str) -> Reply | RpcError:
        try:
            return await ask(address, CALL_S, identity)
        except RpcError as error:
            return error

    replies = await asyncio.gather(*map(one, addresses))
    return dict(zip(addresses, replies, strict=True))


def report(findings: Sequence[Finding], console: Console) -> bool:
    """Shows the findings as a table, what mends them below each; whether nothing fails."""
    table = Table("", "part", "finding", show_lines=False)
    for finding in findings:
        told = Text(finding.message) + (Text(f"\n→ {finding.remedy}", "bold") if finding.remedy else Text())
        table.add_row(Text(finding.level.value, STYLES[finding.level]), Text(finding.subject), told)
    console.print(table)
    return not any_fail(findings)
