"""Workers by name: `dns:HOST:PORT` stands for every address that the name has, looked up again and again.

`file:PATH` is a name too: its addresses are those that the file lists.

A look-up that fails, or finds nothing, changes nothing: workers do not go away because a resolver does.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

from rpc.member_file import is_file, path_of, read_members

logger = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PREFIX = "dns:"
# A look-up that takes longer has failed.
TIMEOUT_S = 5.0
# Of one name; a name that has more is taken for a mistake and the rest left out.
MOST_ADDRESSES = 256


def is_name(address: str) -> bool:
    """Whether an address as settings have it stands for all addresses of a name."""
    return address.startswith(PREFIX)


def split(name: str) -> tuple[str, int]:
    """The host and port of `dns:HOST:PORT`."""
    host, _, port = name.removeprefix(PREFIX).rpartition(":")
    return host, int(port)


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """A name's addresses, as the system resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Names:
    """Addresses of workers: those given, and those that the given names have at the moment."""

    def __init__(self, addresses: Sequence[str], resolve: Resolve = resolve_host) -> None:
        self._given = tuple(addresses)
        self._resolve = resolve
        self._found: dict[str, tuple[str, ...]] = {
            address: () for address in addresses if is_name(address) or is_file(address)
        }
        self._failing: set[str] = set()

    @property
    def has_names(self) -> bool:
        """Whether there is anything to look up."""
        return bool(self._found)

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Names that no look-up has found an address of yet."""
        return tuple(name for name, addresses in self._found.items() if not addresses)

    @property
    def addresses(self) -> Mapping[str, str | None]:
        """`host:port` of each worker, once, and the name that it must have a certificate of; None: its own."""
        known: dict[str, str | None] = {address: None for address in self._given if address not in self._found}
        for name, addresses in self._found.items():
            for address in addresses:
                known.setdefault(address, split(name)[0] if is_name(name) else None)
        return known

    async def look_up(self) -> None:
        """Looks every name up, all at once. Never raises."""
        await asyncio.gather(*map(self._look_up, self._found))

    async def _look_up(self, name: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await self._addresses_of(name)
        except (OSError, ValueError):
            # TimeoutError is an OSError; a name that cannot be encoded is a ValueError.
            found = ()
        self._note(name, is_failing=not found)
        if found:
            self._found[name] = found

    async def _addresses_of(self, name: str) -> tuple[str, ...]:
        if is_file(name):
            return read_members(path_of(name))
        host, port = split(name)
        return at_port(await self._resolve(host, port), port)

    def _note(self, name: str, *, is_failing: bool) -> None:
        if is_failing and name not in self._failing:
            self._failing.add(name)
            logger.warning("a name cannot be resolved", extra={"name_of": name, "kept": len(self._found[name])})
        elif not is_failing and name in self._failing:
            self._failing.remove(name)
            logger.info("a name is resolved again", extra={"name_of": name})


def at_port(hosts: Sequence[str], port: int) -> tuple[str, ...]:
    """`host:port` of each address, in an order of their own.

    Where there are IPv4 addresses only those count: a worker that has one of each would count twice.
    """
    chosen = [host for host in hosts if ":" not in host] or [f"[{host}]" for host in hosts]
    return tuple(f"{host}:{port}" for host in sorted(set(chosen))[:MOST_ADDRESSES])
