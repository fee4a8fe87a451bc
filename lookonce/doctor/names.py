"""The names that workers were given by: what each has for addresses now."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lookonce.doctor.findings import Finding, fail, ok
from rpc.names import Names, Resolve, is_name, resolve_host, split


@dataclass(frozen=True, slots=True)
class Resolved:
    """The workers of one half: `host:port`, and the name that each one's certificate is for where it has one."""

    half: str
    addresses: Mapping[str, str | None]
    findings: tuple[Finding, ...]


def resolve_half(half: str, given: tuple[str, ...], resolve: Resolve = resolve_host) -> Resolved:
    """Looks up the names among a half's addresses."""
    names = Names(given, resolve)
    asyncio.run(names.look_up())
    return Resolved(half, names.addresses, tuple(_judge(half, given, names)))


def _judge(half: str, given: tuple[str, ...], names: Names) -> Iterator[Finding]:
    for name in filter(is_name, given):
        subject, host = f"{half} {name}", split(name)[0]
        if name in names.unresolved:
            yield fail(
                subject, "the name has no address", f"start the workers, or correct {host!r}: a headless service"
            )
            continue
        found = [address for address, its_name in names.addresses.items() if its_name == host]
        yield ok(subject, f"{len(found)} worker{'s' if len(found) != 1 else ''}: {', '.join(found)}")
