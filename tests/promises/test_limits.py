"""The promises about what is too large, too long or too much."""

import json
import socket
from pathlib import Path

import grpc
import psutil
import pytest

from protos import language_pb2, vision_pb2, vision_pb2_grpc
from tests.end_to_end.asking import data_url
from tests.promises.checking import check_grpc, check_http
from tests.promises.pictures import REFUSED
from tests.promises.served import Served

MIB = 1024 * 1024
# The vision worker's own limit is 20 MiB for an image and 64 for a video, and so for a message; the gateway's for a
# body is 128.
MESSAGE_BYTES = 64 * MIB
TOO_LARGE = b"\x89PNG\r\n\x1a\n" + bytes(21 * MIB)
# What a refused image may leave of a process's memory beyond its size now: pools that have grown, not the image.
GROWTH_BYTES = 64 * MIB


def peak_bytes(served: Served) -> int:
    """The most memory that the vision worker has had."""
    status = Path(f"/proc/{served.deployment.vision[0].running.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def resident_bytes(served: Served) -> int:
    """The memory that the vision worker has now."""
    return int(psutil.Process(served.deployment.vision[0].running.pid).memory_info().rss)


def test_an_image_over_the_limit_is_413(served: Served) -> None:
    """One that is too large for a message, and one that is a byte too long."""
    too_long = TOO_LARGE + bytes(MESSAGE_BYTES)
    check_http(served.deployment.http.post("/v1/images", content=too_long), 413, "larger than")
    check_http(served.deployment.http.post("/v1/images", content=TOO_LARGE[: 20 * MIB + 1]), 413, "limit")
    served.check_good()


def test_an_image_over_the_limit_is_resource_exhausted(served: Served) -> None:
    """The vision worker says so itself, and nothing is lost."""
    with pytest.raises(grpc.RpcError) as caught:
        served.vision.Encode(vision_pb2.EncodeRequest(image=TOO_LARGE), timeout=60)
    check_grpc(caught.value, grpc.StatusCode.RESOURCE_EXHAUSTED)
    served.check_good()


def test_a_gzip_bomb_is_resource_exhausted(served: Served) -> None:
    """A message of 100 kB that would be 100 MB is refused before it is that."""
    before = peak_bytes(served)
    bomb = vision_pb2.EncodeRequest(image=bytes(100 * MIB))
    with grpc.insecure_channel(served.deployment.vision[0].address, compression=grpc.Compression.Gzip) as channel:
        stub = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(bomb, timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_bytes(served) - before < GROWTH_BYTES
    served.check_good()


def test_refused_images_take_no_memory(served: Served) -> None:
    """Headers that claim gigabytes, and chunks that unpack to them: the worker's peak hardly moves."""
    served.check_good()
    before = max(peak_bytes(served), resident_bytes(served))
    for data, _ in REFUSED.values():
        with pytest.raises(grpc.RpcError):
            served.vision.Encode(vision_pb2.EncodeRequest(image=data), timeout=60)
    assert peak_bytes(served) - before < GROWTH_BYTES


def test_a_thousand_images_are_refused_before_any_is_touched(served: Served) -> None:
    """In a chat, in an answers request, and over gRPC: 400, and nothing was encoded."""
    before = served.deployment.vision_info().counters["lookonce_image_cache_queries_total"]
    part = {"type": "image_url", "image_url": {"url": data_url(1)}}
    chat = {"messages": [{"role": "user", "content": [part] * 1000}], "max_tokens": 1}
    check_http(served.deployment.http.post("/v1/chat/completions", json={"model": served.model, **chat}), 400, "images")
    answers = {"images": [data_url(1)] * 1000, "questions": [{"text": "what?"}]}
    check_http(served.deployment.http.post("/v1/answers", json=answers), 400, "images")
    request = language_pb2.AnswerRequest(image_ids=["img_0"] * 1000, questions=[language_pb2.Question(text="what?")])
    with pytest.raises(grpc.RpcError) as caught:
        list(served.language.Answer(request, timeout=60))
    check_grpc(caught.value, grpc.StatusCode.INVALID_ARGUMENT, "images")
    assert served.deployment.vision_info().counters["lookonce_image_cache_queries_total"] == before
    served.check_good()


def test_a_prompt_over_the_context_length_is_told_both_counts(served: Served) -> None:
    """How long it is, and how long it may be."""
    most = served.deployment.language_info().context_tokens
    text = "word " * (2 * most)
    response = served.deployment.http.post(
        "/v1/chat/completions", json={"model": served.model, "messages": [{"role": "user", "content": text}]}
    )
    check_http(response, 400, str(most))
    assert response.json()["error"]["code"] == "context_length_exceeded"
    message = language_pb2.Message(role="user", content=[language_pb2.ContentPart(text=text)])
    with pytest.raises(grpc.RpcError) as caught:
        list(served.language.Generate(language_pb2.GenerateRequest(messages=[message]), timeout=60))
    check_grpc(caught.value, grpc.StatusCode.INVALID_ARGUMENT, str(most))
    for told in (response.json()["error"]["message"], caught.value.details() or ""):
        counts = [int(word) for word in told.replace(",", " ").split() if word.isdigit()]
        assert max(counts) > most
    served.check_good()


@pytest.mark.parametrize("length", [5, 10_000])
def test_a_wrong_content_length_harms_nobody(served: Served, length: int) -> None:
    """A body that is longer than it says, or shorter with the client gone: the next good request is answered."""
    body = json.dumps({"model": served.model, "messages": [{"role": "user", "content": "hello"}]}).encode()
    host, _, port = served.deployment.gateway.address.partition(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        if length < len(body):
            assert raw.recv(1000).startswith(b"HTTP/1.1 400")
    served.check_good()
