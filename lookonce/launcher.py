"""A deployment as child processes: store, both workers, gateway. Starts them, watches them, ends them in order.

Restarts nothing: a process that ends by itself ends the deployment, and is named.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from lookonce import embedded, workers
from lookonce.errors import Stopped
from lookonce.kinds import show_size
from lookonce.options import PREFIX, flags
from lookonce.processes import Child
from lookonce.serve_settings import ServeSettings
from lookonce.terminal import HalfInfo, Terminal
from lookonce.workers import own_identity
from rpc.errors import RpcError
from rpc.peers import Identity

CACHE = "cache"
TURNS = "turns"
POLL_S = 0.1
CALL_S = 5.0
# After this, what keeps the halves from pairing is shown.
PATIENCE_S = 15.0
# The store has nothing to drain.
STORE_GRACE_S = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


class Deployment:
    """The processes of one deployment on this machine."""

    def __init__(self, settings: ServeSettings, terminal: Terminal) -> None:
        self._settings = settings
        self._identity = own_identity(settings.gateway.peers)
        self._terminal = terminal
        self._children: dict[str, Child] = {}
        self._directory = ExitStack()

    @property
    def url(self) -> str:
        """Where the gateway is reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.gateway.host, self._settings.gateway.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._settings.gateway.port}"

    async def start(self) -> None:
        """Starts everything, and returns when the halves are paired. Raises `ChildDied`, `NoEmbeddedStore`."""
        directory = self._directory.enter_context(embedded.private_directory())
        settings = (await self._start_store(directory)).with_turns(str(directory / TURNS))
        identity = self._identity
        await self._start_lookonce("vision", settings.vision)
        await self._start_lookonce("language", settings.language)
        await self._start_lookonce("gateway", settings.gateway)
        await self.unless_dead(
            asyncio.gather(
                self._until_half("vision", lambda: workers.vision_info(settings.vision.listen, CALL_S, identity)),
                self._until_half("language", lambda: workers.language_info(settings.language.listen, CALL_S, identity)),
                self._until_gateway(),
            )
        )
        await self.unless_dead(self._until_paired())

    async def unless_dead(self, work: Awaitable[Result]) -> Result:
        """The work's result. Raises `ChildDied` where a process ends before it; the work is cancelled then."""
        task = asyncio.ensure_future(work)
        exits = [child.exited for child in self._children.values()]
        try:
            await asyncio.wait([task, *exits], return_when=asyncio.FIRST_COMPLETED)
            for child in self._children.values():
                if child.exited.done():
                    raise child.death()
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        """Ends everything: no new request, then the running ones, then the store; and removes the store's directory."""
        try:
            for names, grace_s in self._stages():
                await asyncio.gather(*(self._stop(name, grace_s) for name in names if name in self._children))
        finally:
            self.kill()
            await asyncio.gather(*(child.exited for child in self._children.values()))
            self._directory.close()

    def kill(self) -> None:
        """SIGKILL to every process that is left."""
        for child in self._children.values():
            child.signal(signal.SIGKILL)

    def _stages(self) -> tuple[tuple[tuple[str, ...], float], ...]:
        settings = self._settings
        workers_s = max(settings.vision.grace_s, settings.language.grace_s)
        return (
            (("gateway",), settings.gateway.grace_s),
            (("vision", "language"), workers_s),
            (("store",), STORE_GRACE_S),
        )

    async def _stop(self, name: str, grace_s: float) -> None:
        if not await self._children[name].stop(grace_s):
            self._terminal.problem(f"the {name} process did not end in {grace_s:g} s and was killed")

    async def _start_store(self, directory: Path) -> ServeSettings:
        settings = self._settings
        if settings.cache_bytes is None:
            return settings
        program = embedded.find_program()
        largest = max(settings.vision.max_entry_bytes, settings.vision.max_upload_bytes)
        command = embedded.server_command(program, directory, settings.cache_bytes, largest)
        store = await self._start("store", command, unmarked_level="info")
        await self.unless_dead(embedded.until_answering(directory))
        self._terminal.ready("store", f"embedded with {show_size(settings.cache_bytes)} of memory", store.seconds())
        return settings.with_store(embedded.store_url(directory))

    async def _start_lookonce(self, name: str, settings: Any) -> None:
        """Starts one of our own commands with exactly these settings."""
        command, environment = own_command(name, settings)
        await self._start(name, command, environment=environment)

    async def _start(self, name: str, command: list[str], **options: Any) -> Child:
        child = await Child.start(name, command, self._terminal.child_line, **options)
        self._children[name] = child
        return child

    async def _until_half(self, name: str, ask: Callable[[], Coroutine[Any, Any, HalfInfo]]) -> None:
        while True:
            try:
                info = await ask()
            except RpcError:
                await asyncio.sleep(POLL_S)
            else:
                self._terminal.half_ready(name, info, self._children[name].seconds())
                return

    async def _until_gateway(self) -> None:
        """Returns once the gateway answers. /health is the one route that never wants a token."""
        async with httpx.AsyncClient(base_url=self.url, timeout=CALL_S) as client:
            while not await _is_alive(client):  # noqa: ASYNC110 - another process cannot set an event of ours
                await asyncio.sleep(POLL_S)
        self._terminal.ready("gateway", f"listening on {self.url}", self._children["gateway"].seconds())

    async def _until_paired(self) -> None:
        language, told = self._children["language"], False
        began_s = language.seconds()
        while (problem := await pairing_problem(self._settings.language.listen, self._identity)) is not None:
            if not told and language.seconds() - began_s > PATIENCE_S:
                self._terminal.problem(f"still waiting for the halves to pair: {problem}")
                told = True
            await asyncio.sleep(POLL_S)


def own_command(name: str, settings: object) -> tuple[list[str], dict[str, str]]:
    """One of our own commands with exactly these settings, and its environment.

    The store's URL, which may hold a password, goes by the environment, where others cannot read it.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    if cache := getattr(settings, CACHE, None):
        environment[PREFIX + CACHE.upper()] = cache
    return [sys.executable, "-m", "lookonce", name, *flags(settings, without=(CACHE,))], environment


async def _is_alive(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).is_success
    except httpx.TransportError:
        return False


async def pairing_problem(language: str, identity: Identity) -> str | None:
    """Why the language worker is not paired; None where it is."""
    try:
        peers = (await workers.language_info(language, CALL_S, identity)).vision
    except RpcError as error:
        return error.message
    return next((peer.problem or "they have not met yet" for peer in peers if not peer.paired), None)


Make = Callable[[ServeSettings, Terminal], Deployment]


async def with_deployment(
    settings: ServeSettings, terminal: Terminal, work: Callable[[str], Awaitable[Result]], make: Make = Deployment
) -> Result:
    """Starts a deployment, gives its URL to `work`, and ends it when that is done.

    Raises `ChildDied`, `NoEmbeddedStore`; `Stopped` where a signal came first, after draining, or after a second one.
    """
    async with _signals() as (first, second):
        deployment = make(settings, terminal)
        try:
            return await _unless(first, _started(deployment, work))
        except Stopped:
            terminal.say("stopping: requests that run may end, a second Ctrl-C kills", "dim")
            raise
        finally:
            await _unless(second, deployment.stop(), deployment.kill)


async def _started(deployment: Deployment, work: Callable[[str], Awaitable[Result]]) -> Result:
    await deployment.start()
    return await deployment.unless_dead(work(deployment.url))


async def _unless(
    stop: asyncio.Event, work: Coroutine[Any, Any, Result], kill: Callable[[], None] | None = None
) -> Result:
    """The work's result. Raises `Stopped` where the event comes first.

    Then the work is cancelled; or, with `kill`, what it waits for is killed and the work goes on to its end.
    """
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            return await task
        if kill is None:
            task.cancel()
        else:
            kill()
        await asyncio.gather(task, return_exceptions=True)
        raise Stopped(forced=kill is not None)
    finally:
        stopped.cancel()


@asynccontextmanager
async def _signals() -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    """Events of the first and the second signal that asks us to end."""
    first, second = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def came() -> None:
        (second if first.is_set() else first).set()

    for number in SIGNALS:
        loop.add_signal_handler(number, came)
    try:
        yield first, second
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
