"""What is fuzzed: a whole deployment, and what it may answer to bad input."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import psutil

from protos import vision_pb2
from tests.deployment import Deployment, deploy, redis_server
from tests.end_to_end.asking import data_url
from tests.families import make
from tests.promises.checking import FORBIDDEN
from tests.promises.served import Served

# Long enough for any answer of a tiny model; a request that hangs ends with a breach, not the run.
CALL_S = 30.0
GATEWAY = ("--request-timeout-s", "20")
# Answers that nobody bounds are short. Caches are small, so that what grows is not they.
LANGUAGE = ("--default-max-tokens", "4", "--kv-bytes", "8000000", "--local-cache-bytes", "1000000")
# Codes that are an answer to bad input; UNAVAILABLE and INTERNAL are not.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
ERROR_FIELDS = {"message", "type", "param", "code"}
TYPED_5XX = (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)


class Breach(Exception):
    """A promise that was not kept; the message says which."""


@dataclass
class Target:
    """The deployment, and what its good request is answered."""

    served: Served
    _clients: threading.local = field(default_factory=threading.local)

    @property
    def deployment(self) -> Deployment:
        """Its processes."""
        return self.served.deployment

    @property
    def http(self) -> httpx.Client:
        """A client of the gateway for this thread."""
        if not hasattr(self._clients, "http"):
            self._clients.http = httpx.Client(base_url=self.deployment.url, timeout=CALL_S)
        client: httpx.Client = self._clients.http
        return client

    def resident_bytes(self) -> dict[str, int]:
        """The memory of each process."""
        return {each.name: psutil.Process(each.running.pid).memory_info().rss for each in self.deployment.processes}

    def in_use(self) -> dict[str, tuple[int, int]]:
        """Descriptors and threads of each process."""
        found = {each.name: psutil.Process(each.running.pid) for each in self.deployment.processes}
        return {name: (process.num_fds(), process.num_threads()) for name, process in found.items()}

    def check_well(self) -> None:
        """Every process lives, and the good request is answered as it was at first. Raises `Breach`."""
        for process in self.deployment.processes:
            if process.running.poll() is not None:
                raise Breach(f"{process.name} ended with {process.running.returncode}")
        response = self.served.chat(data_url(1))
        if response.status_code != httpx.codes.OK:
            raise Breach(f"the next good request was answered with {response.status_code}: {response.text:.200}")
        text = response.json()["choices"][0]["message"]["content"]
        self.served.calm = self.served.calm or text
        if text != self.served.calm:
            raise Breach(f"the good request was answered with {text!r}, and first with {self.served.calm!r}")


@contextmanager
def open_target(directory: Path) -> Iterator[Target]:
    """A store, two workers and a gateway over a tiny random checkpoint."""
    from protos import language_pb2_grpc, vision_pb2_grpc

    model = make("qwen2_vl", directory / "model")
    with (
        redis_server(directory / "store") as store,
        deploy(model, store.url, directory, language=LANGUAGE, gateway=GATEWAY) as deployment,
        grpc.insecure_channel(deployment.vision[0].address) as eyes,
        grpc.insecure_channel(deployment.language[0].address) as mouth,
    ):
        vision = vision_pb2_grpc.VisionServiceStub(eyes)  # type: ignore[no-untyped-call]
        language = language_pb2_grpc.LanguageServiceStub(mouth)  # type: ignore[no-untyped-call]
        yield Target(Served(deployment, model, store, eyes, mouth, vision, language))


def judge_http(response: httpx.Response) -> str:
    """What a reply comes to: "answered" or its status. Raises `Breach` for neither an answer nor a typed error."""
    if response.is_success:
        return "answered"
    status = response.status_code
    try:
        error = response.json()["error"]
        fields, message = set(error), str(error["message"])
    except (ValueError, KeyError, TypeError) as exc:
        raise Breach(f"{status} without an error object: {response.text:.200}") from exc
    if fields != ERROR_FIELDS:
        raise Breach(f"{status} with an error object of {sorted(fields)}")
    if response.is_server_error and status not in TYPED_5XX:
        raise Breach(f"{status}: {message:.200}")
    judge_message(message)
    return str(status)


def judge_grpc(error: grpc.RpcError) -> str:
    """The code of a refusal. Raises `Breach` for one that bad input must not lead to."""
    code, message = error.code(), error.details() or ""
    if code not in REFUSALS:
        raise Breach(f"{code.name}: {message:.200}")
    judge_message(message)
    return str(code.name)


def judge_message(message: str) -> None:
    """Raises `Breach` for one that tells of our insides."""
    found = FORBIDDEN.search(message)
    if not message or found:
        raise Breach(f"the message {message:.200!r} is empty or leaks {found and found[0]!r}")


def fetch(target: Target, image_id: str, fingerprint: str) -> bytes:
    """An image's entry, from the vision worker."""
    request = vision_pb2.FetchEmbeddingRequest(image_id=image_id, fingerprint=fingerprint)
    return b"".join(chunk.data for chunk in target.served.vision.FetchEmbedding(request, timeout=CALL_S))
