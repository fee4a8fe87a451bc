"""A deployment on a Ray cluster: the workers are Serve's, the gateway and the embedded store are processes here."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

import ray

from lookonce import embedded
from lookonce.errors import DeployFailed, NoRay
from lookonce.launcher import CALL_S, POLL_S, SIGNALS, Deployment, pairing_problem
from lookonce.ray import serve_apps
from lookonce.ray.registry import NAMESPACE, Registered
from lookonce.ray.settings import RaySettings
from lookonce.serve_settings import ServeSettings
from lookonce.terminal import Terminal
from lookonce.workers import language_info, vision_info
from rpc.member_file import PREFIX, write_members

logger = logging.getLogger(__name__)

# How often the gateway's side looks who serves.
LOOK_S = 0.5


class RayDeployment(Deployment):
    """Workers on a cluster, with their gateway here."""

    def __init__(self, settings: ServeSettings, terminal: Terminal, on_ray: RaySettings) -> None:
        super().__init__(settings, terminal)
        self._on_ray = on_ray
        self._registered: Registered | None = None
        self._following: asyncio.Task[None] | None = None
        self._is_deployed = False

    async def start(self) -> None:
        """Starts everything, and returns when the halves are paired.

        Raises `NoRay`, `DeployFailed`, `ChildDied`, `NoEmbeddedStore`.
        """
        directory = self._directory.enter_context(embedded.private_directory())
        await asyncio.to_thread(self._connect)
        _take_signals_back()
        settings = await self._start_store(directory)
        self._registered = await asyncio.to_thread(Registered, self._on_ray.name)
        self._is_deployed = True
        began = asyncio.get_running_loop().time()
        await self.unless_dead(asyncio.to_thread(serve_apps.deploy, self._on_ray, (settings.vision, settings.language)))
        await self.unless_dead(self._until_present())
        await self._tell_halves(asyncio.get_running_loop().time() - began)
        await self._start_gateway(directory, settings)
        await self.unless_dead(self._until_some_pair())

    async def stop(self) -> None:
        """Ends everything: no new request, then the running ones, then what is left on the cluster, and the store."""
        try:
            if "gateway" in self._children:
                await self._stop("gateway", self._settings.gateway.grace_s)
            await self._leave_cluster()
        finally:
            await super().stop()

    async def _leave_cluster(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._is_deployed:
            await asyncio.to_thread(serve_apps.remove, self._on_ray)
        if self._registered is not None:
            self._registered.remove()
        await asyncio.to_thread(ray.shutdown)

    def _connect(self) -> None:
        try:
            ray.init(
                address=self._on_ray.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False if self._on_ray.address == "local" else None,
            )
            logging.getLogger("ray.serve").setLevel(logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as exc:
            raise NoRay(
                f"no Ray cluster answers at {self._on_ray.address!r}: start one with 'ray start --head', give another "
                "--address, or --address local"
            ) from exc
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        if self._settings.cache_bytes is not None and nodes > 1:
            raise DeployFailed(
                f"the cluster has {nodes} nodes, and the embedded store is for one: give --cache redis://…"
            )

    async def _start_gateway(self, directory: Path, settings: ServeSettings) -> None:
        await self._write(directory)
        self._following = asyncio.create_task(self._follow(directory))
        await self._start_lookonce("gateway", settings.gateway_of(*(f"{PREFIX}{path}" for path in _files(directory))))
        await self.unless_dead(self._until_gateway())

    async def _follow(self, directory: Path) -> None:
        """Keeps the gateway told of who serves."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._write(directory)
            except Exception:
                # Without this task nobody would ever join or leave again.
                logger.exception("telling the gateway who serves failed")

    async def _write(self, directory: Path) -> None:
        known = await self._look()
        for path, addresses in zip(_files(directory), known, strict=True):
            write_members(path, addresses)

    async def _look(self) -> tuple[Sequence[str], Sequence[str]]:
        if self._registered is None:
            raise AssertionError("the registry is made before anybody looks")
        await self._registered.look()
        return self._registered.known.vision, self._registered.known.language

    async def _until_present(self) -> None:
        """Returns once as many workers of each half have told of themselves as there are at least."""
        least = [role.replicas.least for role in self._on_ray.roles]
        while any(len(there) < wanted for there, wanted in zip(await self._look(), least, strict=True)):  # noqa: ASYNC110 - actors set no event of ours
            await asyncio.sleep(POLL_S)

    async def _tell_halves(self, seconds: float) -> None:
        vision, language = await self._look()
        self._terminal.half_ready("vision", await vision_info(vision[0], CALL_S, self._identity), seconds)
        self._terminal.half_ready("language", await language_info(language[0], CALL_S, self._identity), seconds)

    async def _until_some_pair(self) -> None:
        while True:
            _, language = await self._look()
            problems = [await pairing_problem(address, self._identity) for address in language]
            if not all(problems):
                return
            await asyncio.sleep(POLL_S)


def _take_signals_back() -> None:
    """Puts this process's own signal handlers over Ray's, which ends it three seconds after SIGTERM."""
    for number in SIGNALS:
        signal.signal(number, signal.getsignal(number))
        signal.siginterrupt(number, False)


def _files(directory: Path) -> tuple[Path, Path]:
    return directory / "vision", directory / "language"
