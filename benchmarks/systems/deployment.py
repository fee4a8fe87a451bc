"""lookonce's own processes on loopback ports: a store, a vision worker, one or more language workers, and gateways."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx

from benchmarks.errors import SystemFailed
from benchmarks.systems.hosted import ROOT
from benchmarks.systems.memory import memory_of
from benchmarks.systems.system import CPU, KV_BYTES, Place, ProcessMemory
from checkpoint import Half, describe, resolve_dtype
from lookonce import embedded
from lookonce.serve_settings import free_ports
from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc

STORE_BYTES = 4 << 30
START_S = 600.0
STOP_S = 30.0
POLL_S = 0.05
CALL_S = 5.0


@dataclass(slots=True)
class Deployment:
    """A running deployment. `with_gateways` puts one in front of each language worker, or one in front of all.

    Attributes:
        is_routed: One gateway, which chooses a language worker for each image.
        has_disk: Half of the room for keys and values is the lower tiers', and below them is a directory.
        place: Where both halves compute.
        flags: More of them, for each worker.
        vision: Address of the vision worker.
        language: Addresses of the language workers.
        gateways: The URL for each language worker's share of the questions; empty without gateways.
    """

    with_gateways: bool
    is_routed: bool = False
    has_disk: bool = False
    place: Place = CPU
    flags: tuple[str, ...] = ()
    vision: str = ""
    language: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    _commands: dict[str, tuple[list[str], dict[str, str]]] = field(default_factory=dict)
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _held: ExitStack = field(default_factory=ExitStack)

    def start(self, checkpoint: Path, kv_tokens: int | None, doors: int) -> None:
        """Starts everything and returns when all of it answers and is paired. Raises `SystemFailed`."""
        threads = max(self.place.threads // doors, 1)
        ports = free_ports(1 + 2 * doors)
        addresses = [f"127.0.0.1:{port}" for port in ports]
        self.vision, self.language = addresses[0], tuple(addresses[1 : 1 + doors])
        store = self._start_store()
        worker = [*self.flags, "--model", str(checkpoint), "--log-level", "warning", "--cache", store]
        # As `lookonce serve` does, where all workers share the cores.
        turns = self._held.enter_context(embedded.private_directory()) / "turns"
        worker += ["--turns", str(turns), "--device", self.place.device, "--dtype", self.place.dtype]
        vision = [*worker, "--listen", self.vision, "--threads", str(self.place.threads)]
        self._add("vision", vision, self.place.threads)
        kv = [*self._memory(_kv_bytes(checkpoint, kv_tokens, self.place.dtype)), "--threads", str(threads)]
        for door, address in enumerate(self.language):
            self._add(f"language{door}", [*worker, "--listen", address, "--vision", self.vision, *kv], threads)
        if self.with_gateways:
            self._add_gateways(ports[1 + doors :])
        for name in self._commands:
            self._spawn(name)
        self._wait(self._is_ready, "the halves to pair")

    def restart_language(self) -> None:
        """Ends the language workers and starts them again on their ports."""
        names = [name for name in self._commands if name.startswith("language")]
        for name in names:
            self._processes[name].terminate()
        for name in names:
            self._processes[name].wait(STOP_S)
            self._spawn(name)
        self._wait(self._is_ready, "the halves to pair again")

    def memory(self) -> Sequence[ProcessMemory]:
        """Peak memory of every process by its role."""
        return [
            memory
            for name, process in self._processes.items()
            for memory in memory_of(name.rstrip("0123456789"), process.pid, self.place)
        ]

    def language_info(self, door: int = 0) -> language_pb2.LanguageInfo:
        """What a language worker says of itself. Raises `grpc.RpcError`."""
        with grpc.insecure_channel(self.language[door]) as channel:
            stub = language_pb2_grpc.LanguageServiceStub(channel)  # type: ignore[no-untyped-call]
            info: language_pb2.LanguageInfo = stub.GetInfo(language_pb2.GetInfoRequest(), timeout=CALL_S)
            return info

    def vision_info(self) -> vision_pb2.VisionInfo:
        """What the vision worker says of itself. Raises `grpc.RpcError`."""
        with grpc.insecure_channel(self.vision) as channel:
            stub = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
            info: vision_pb2.VisionInfo = stub.GetInfo(vision_pb2.GetInfoRequest(), timeout=CALL_S)
            return info

    def stop(self) -> None:
        """Ends what runs, the store last."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._commands.clear()
        self._held.close()

    def _start_store(self) -> str:
        directory = self._held.enter_context(embedded.private_directory())
        command = embedded.server_command(embedded.find_program(), directory, STORE_BYTES, STORE_BYTES // 4)
        self._commands["store"] = (command, {})
        self._spawn("store")
        self._wait((directory / embedded.SOCKET).exists, "the store")
        del self._commands["store"]
        return embedded.store_url(directory)

    def _memory(self, kv_bytes: int) -> list[str]:
        """Flags of a language worker that keeps so many bytes of keys and values in memory."""
        if not self.has_disk:
            return ["--kv-bytes", str(kv_bytes)]
        half = str(kv_bytes // 2)
        directory = self._held.enter_context(embedded.private_directory())
        return ["--kv-bytes", half, "--kv-host-bytes", half, "--kv-disk-dir", str(directory)]

    def _add(self, name: str, flags: Sequence[str], threads: int) -> None:
        command = [sys.executable, "-m", "lookonce", name.rstrip("0123456789"), *flags]
        self._commands[name] = (command, {"OMP_NUM_THREADS": str(threads)})

    def _add_gateways(self, ports: Sequence[int]) -> None:
        behind = [",".join(self.language)] if self.is_routed else list(self.language)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for door, (port, language) in enumerate(zip(ports, behind, strict=False)):
            flags = ["--vision", self.vision, "--language", language, "--port", str(port), "--log-level", "warning"]
            self._add(f"gateway{door}", flags, 1)
        self.gateways = (urls[0],) * len(urls) if self.is_routed else tuple(urls)

    def _spawn(self, name: str) -> None:
        command, more = self._commands[name]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LOOKONCE_")}
        with _log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - the project's own processes
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited, "PYTHONPATH": paths, **more},
            )

    def _is_ready(self) -> bool:
        if self.with_gateways:
            return all(_gateway_ready(url) for url in self.gateways)
        return all(_paired(self, door) for door in range(len(self.language)))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + START_S
        while not condition():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    last = "\n".join(_log(name).read_text(errors="replace").splitlines()[-20:])
                    raise SystemFailed(f"the {name} process ended with {process.returncode}:\n{last}")
            if time.monotonic() > end:
                raise SystemFailed(f"waited {START_S:g} s in vain for {what}")
            time.sleep(POLL_S)


def _kv_bytes(checkpoint: Path, kv_tokens: int | None, dtype: str) -> int:
    if kv_tokens is None:
        return KV_BYTES
    text = describe(checkpoint).config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    item = resolve_dtype(checkpoint, dtype, Half.LANGUAGE).itemsize
    return int(kv_tokens * 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * item)


def _paired(deployment: Deployment, door: int) -> bool:
    try:
        info = deployment.language_info(door)
    except grpc.RpcError:
        return False
    return bool(info.fingerprint)


def _gateway_ready(url: str) -> bool:
    try:
        state: Mapping[str, Any] = httpx.get(f"{url}/ready", timeout=CALL_S).json()
    except (httpx.TransportError, ValueError):
        return False
    return state.get("status") == "ready"


def _log(name: str) -> Path:
    directory = ROOT / ".cache" / "bench-logs"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"lookonce-{name}.log"
