"""lookonce's processes on one host or on two.

The vision worker is on the vision host; the store, the language worker, the gateways and the client are on the
language host. So an entry crosses the link once, when it is put, and what asks for it again finds it near: after a
restart, after an eviction, from a second language worker. With the store on the other side it would cross each time.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import grpc
import redis

from benchmarks.errors import SystemFailed
from benchmarks.hosts.link import Host
from benchmarks.systems.deployment import STORE_BYTES, Deployment
from benchmarks.systems.system import KV_BYTES
from cache import DEFAULT_TENANT, Entry, decode, entry_key
from lookonce import embedded
from lookonce.serve_settings import free_ports
from protos import vision_pb2, vision_pb2_grpc

# On a link of 10 Mbit/s a large entry takes longer than the workers' default of 5 s.
STORE_TIMEOUT_S = "60"
CALL_S = 120.0
THREADS = 1


@dataclass(slots=True)
class Apart(Deployment):
    """A deployment whose halves are on `eyes` and `mouth`, which may be one host. Started from inside `mouth`.

    Each codec has a vision worker and a gateway of its own, in the order of `codecs`; one language worker reads what
    all of them made.

    Attributes:
        delay_s: Of every byte that goes from one host to the other.
        dtypes: Of the vision half and of the language half.
    """

    eyes: Host = field(kw_only=True)
    mouth: Host = field(kw_only=True)
    codecs: tuple[str, ...] = ("none",)
    delay_s: float = 0.0
    dtypes: tuple[str, str] = ("auto", "auto")
    seers: tuple[str, ...] = ()
    store_socket: str = ""

    def start(self, checkpoint: Path, kv_tokens: int | None = None, doors: int = 1) -> None:
        """Starts everything and returns when all of it answers and is paired. Raises `SystemFailed`."""
        self.launch(checkpoint)
        self.wait_ready()

    def launch(self, checkpoint: Path) -> None:
        """Starts everything, and waits for the store alone. Raises `SystemFailed`."""
        near, far = self._open_store()
        worker = ["--model", str(checkpoint), "--log-level", "warning", "--store-timeout-s", STORE_TIMEOUT_S]
        worker += ["--threads", str(THREADS)]
        if self.eyes is self.mouth:
            # As `lookonce serve` does, where both halves share the cores.
            worker += ["--turns", str(self._held.enter_context(embedded.private_directory()) / "turns")]
        self._add_eyes([*worker, "--cache", far])
        mouth, *doors_at = (f"{self.mouth.address}:{port}" for port in free_ports(1 + len(self.codecs)))
        self.language = (mouth,)
        flags = [*worker, "--cache", near, "--listen", mouth, "--vision", ",".join(self.seers)]
        self._on(self.mouth, "language0", [*flags, "--dtype", self.dtypes[1], "--kv-bytes", str(KV_BYTES // 4)])
        self._add_doors(doors_at)
        for name in self._commands:
            if name not in self._processes:
                self._spawn(name)

    def wait_ready(self) -> None:
        """Returns when everything answers and is paired. Raises `SystemFailed`."""
        self._wait(self._is_ready, "the halves to pair")

    def encode(self, image: bytes, codec: int = 0) -> tuple[float, vision_pb2.Image]:
        """Seconds until a new image's entry is in the store, and the image. Raises `grpc.RpcError`."""
        with grpc.insecure_channel(self.seers[codec]) as channel:
            stub = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
            stub.GetInfo(vision_pb2.GetInfoRequest(), timeout=CALL_S)
            started = perf_counter()
            made: vision_pb2.Image = stub.Encode(vision_pb2.EncodeRequest(image=image), timeout=CALL_S)
            return perf_counter() - started, made

    def entry(self, image: vision_pb2.Image) -> Entry:
        """What is in the store of an image. Raises `SystemFailed`, `cache.DamagedEntry`."""
        fingerprint = self.language_info().fingerprint
        key = entry_key(image.image_id, fingerprint, DEFAULT_TENANT)
        stored = redis.Redis(unix_socket_path=self.store_socket).get(key)
        if not isinstance(stored, bytes):
            raise SystemFailed("the store has lost an entry")
        return decode(stored, expected_key=key, expected_fingerprint=fingerprint)

    def forget(self) -> None:
        """Empties the store, which would else fill up in the course of a long run."""
        redis.Redis(unix_socket_path=self.store_socket).flushall()

    def _open_store(self) -> tuple[str, str]:
        """URLs of the store for the language worker, and for the vision workers."""
        directory = self._held.enter_context(embedded.private_directory())
        self.store_socket = str(directory / embedded.SOCKET)
        command = embedded.server_command(embedded.find_program(), directory, STORE_BYTES // 4, STORE_BYTES // 16)
        (port,) = free_ports(1)
        address = f"{self.mouth.address}:{port}"
        # It is alone with us on this network.
        command += ["--port", str(port), "--bind", self.mouth.address, "--protected-mode", "no"]
        self._commands["store"] = (self.mouth.command(*command), {})
        self._spawn("store")
        self._wait((directory / embedded.SOCKET).exists, "the store")
        near = embedded.store_url(directory)
        if self.eyes is self.mouth:
            return near, near
        return near, f"redis://{self._delayed(self.eyes, address, 'store')}/0"

    def _delayed(self, host: Host, target: str, name: str) -> str:
        """Where processes on `host` reach `target`, which is on the other one."""
        if self.delay_s == 0 or self.eyes is self.mouth:
            return target
        (port,) = free_ports(1)
        here = f"127.0.0.1:{port}"
        command = (sys.executable, "-m", "benchmarks.hosts.delaying", here, target, str(self.delay_s))
        self._commands[f"delay-{name}"] = (host.command(*command), {})
        return here

    def _add_eyes(self, worker: Sequence[str]) -> None:
        listening = [f"{self.eyes.address}:{port}" for port in free_ports(len(self.codecs))]
        for place, (codec, address) in enumerate(zip(self.codecs, listening, strict=True)):
            flags = [*worker, "--listen", address, "--entry-compression", codec, "--dtype", self.dtypes[0]]
            self._on(self.eyes, f"vision{place}", flags)
        self.seers = tuple(
            self._delayed(self.mouth, address, f"eyes{place}") for place, address in enumerate(listening)
        )

    def _add_doors(self, doors_at: Sequence[str]) -> None:
        for place, (seer, door) in enumerate(zip(self.seers, doors_at, strict=True)):
            host, _, port = door.rpartition(":")
            near = ["--vision", seer, "--language", self.language[0], "--host", host, "--port", port]
            self._on(self.mouth, f"gateway{place}", [*near, "--log-level", "warning"])
        self.gateways = tuple(f"http://{door}" for door in doors_at)

    def _on(self, host: Host, name: str, flags: Sequence[str]) -> None:
        self._add(name, flags, THREADS)
        command, more = self._commands[name]
        self._commands[name] = (host.command(*command), more)
