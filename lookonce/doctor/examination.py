"""The whole examination: everybody who was named is asked, and what they say is judged."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookonce import workers
from lookonce.client import Client
from lookonce.doctor.certificates import examine_files, examine_served
from lookonce.doctor.clocks import Reading, judge_clocks
from lookonce.doctor.findings import Finding, Level, any_fail
from lookonce.doctor.halves import (
    LanguageReplies,
    VisionReplies,
    judge_language,
    judge_pair,
    judge_vision,
    largest_entry_bytes,
)
from lookonce.doctor.limits import judge_limits
from lookonce.doctor.names import Resolved, resolve_half
from lookonce.doctor.server import ServerExamined, examine_server
from lookonce.doctor.store import examine_store
from protos import language_pb2, vision_pb2
from rpc.errors import RpcError
from rpc.peers import Identity, PeerSettings

CALL_S = 5.0
STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}

TLS_PORTS = {"https": 443, "rediss": 6379}

Reply = TypeVar("Reply", vision_pb2.VisionInfo, language_pb2.LanguageInfo)


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
    clocks: list[Reading] = []
    vision, language = resolve_half("vision", targets.vision), resolve_half("language", targets.language)
    visions, languages = asyncio.run(_ask_workers(vision, language, targets.peers, clocks))
    server = ServerExamined(())
    if targets.server is not None:
        with Client(targets.server, token) as client:
            server = examine_server(client)
    findings = [*server.findings, *vision.findings, *language.findings]
    findings += [*judge_vision(visions), *judge_language(languages), *judge_pair(visions, languages)]
    findings += judge_limits(visions, server.body_bytes)
    if targets.cache is not None:
        findings += examine_store(targets.cache, largest_entry_bytes(visions))
    findings += judge_clocks([*clocks, *([server.clock] if server.clock else [])])
    findings += _examine_certificates(targets, vision, language)
    if targets.model is not None:
        findings += _examine_model(targets.model, visions, languages)
    return findings


def _examine_model(model_dir: Path, visions: VisionReplies, languages: LanguageReplies) -> list[Finding]:
    # Here, for it imports torch, which nothing else of the doctor's needs.
    from lookonce.doctor.model import examine_model

    return list(examine_model(model_dir, visions, languages))


def _examine_certificates(targets: Targets, *halves: Resolved) -> Iterator[Finding]:
    """Those in our files, and those that the named parts show."""
    yield from examine_files(targets.peers)
    for half in halves:
        for address in half.addresses:
            host, _, port = address.rpartition(":")
            yield from examine_served(f"{half.half} {address}", host.strip("[]"), int(port), targets.peers)
    for part, url in (("gateway", targets.server), ("store", targets.cache)):
        parsed = urlsplit(url or "")
        if parsed.scheme in TLS_PORTS and parsed.hostname:
            port_number = parsed.port or TLS_PORTS[parsed.scheme]
            yield from examine_served(part, parsed.hostname, port_number, PeerSettings())


async def _ask_workers(
    vision: Resolved, language: Resolved, peers: PeerSettings, clocks: list[Reading]
) -> tuple[VisionReplies, LanguageReplies]:
    identity = workers.own_identity(peers)
    return await asyncio.gather(
        _ask_all(vision, workers.vision_info, identity, clocks),
        _ask_all(language, workers.language_info, identity, clocks),
    )


async def _ask_all(
    half: Resolved,
    ask: Callable[[str, float, Identity, str | None], Awaitable[Reply]],
    identity: Identity,
    clocks: list[Reading],
) -> dict[str, Reply | RpcError]:
    async def one(address: str) -> Reply | RpcError:
        asked = time.time()
        try:
            info = await ask(address, CALL_S, identity, half.addresses[address])
        except RpcError as error:
            return error
        clocks.append(Reading(f"{half.half} {address}", info.now, asked, time.time()))
        return info

    replies = await asyncio.gather(*map(one, half.addresses))
    return dict(zip(half.addresses, replies, strict=True))


def report(findings: Sequence[Finding], console: Console) -> bool:
    """Shows the findings as a table, what mends them below each; whether nothing fails."""
    table = Table("", "part", "finding", show_lines=False)
    for finding in findings:
        told = Text(finding.message) + (Text(f"\n→ {finding.remedy}", "bold") if finding.remedy else Text())
        table.add_row(Text(finding.level.value, STYLES[finding.level]), Text(finding.subject), told)
    console.print(table)
    return not any_fail(findings)
