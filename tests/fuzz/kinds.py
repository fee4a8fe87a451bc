"""The kinds of bad input: each makes one from chance, sends it, and says what became of it."""

import base64
import contextlib
import random
import socket
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from cache.entry import Entry, decode
from protos import language_pb2, vision_pb2
from tests.fuzz.mutations import damaged, damaged_json
from tests.fuzz.target import CALL_S, Breach, Target, fetch, judge_grpc, judge_http
from tests.videos.clips import drawn, video
from tests.vision_server.pictures import animation, file_of, picture, png

Kind = Callable[[random.Random, Target], str]
RAW_S = 3.0
JSON = {"content-type": "application/json"}


@cache
def image_files() -> tuple[bytes, ...]:
    """Sound files of every format, small so that what is still sound is encoded at once."""
    sizes = {"PNG": "RGB", "JPEG": "RGB", "WEBP": "RGB", "GIF": "P"}
    files = [file_of(picture(56, 56, seed, mode), kind) for seed, (kind, mode) in enumerate(sizes.items())]
    return (*files, animation("GIF", 3), animation("PNG", 3), file_of(picture(56, 56, 9, "LA")), png(seed=4))


def _image(chance: random.Random) -> bytes:
    files = image_files()
    return damaged(chance, chance.choice(files), files)


def upload(chance: random.Random, target: Target) -> str:
    """A damaged image as an upload, as a raw body or a form."""
    data = _image(chance)
    if chance.random() < 0.5:
        return judge_http(target.http.post("/v1/images", content=data))
    name = chance.choice(("a.png", "", "../a", "\u2603.jpg"))
    return judge_http(target.http.post("/v1/images", files={"file": (name, data, "image/png")}))


def data_url(chance: random.Random, target: Target) -> str:
    """A damaged image in a chat."""
    url = "data:image/png;base64," + base64.b64encode(_image(chance)).decode()
    return judge_http(target.http.post("/v1/chat/completions", json=chat_body(url)))


def encode_call(chance: random.Random, target: Target) -> str:
    """A damaged image over gRPC."""
    try:
        target.served.vision.Encode(vision_pb2.EncodeRequest(image=_image(chance)), timeout=CALL_S)
    except grpc.RpcError as error:
        return judge_grpc(error)
    return "answered"


@cache
def video_files() -> tuple[bytes, ...]:
    """Sound files of every container, small so that what is still sound is encoded at once."""
    few = drawn(4, width=48, height=32)
    whole_first = {"movflags": "frag_keyframe+empty_moov"}
    return (
        video(few),
        video(few, codec="libx264", pixels="yuv420p", **whole_first),
        video(few, "webm", "libvpx-vp9", "yuv420p"),
        video(few, "matroska", "mjpeg", "yuvj420p"),
        video(few, "avi", "mpeg4", "yuv420p"),
    )


def video_upload(chance: random.Random, target: Target) -> str:
    """A damaged video, as an upload or over gRPC."""
    files = video_files()
    data = damaged(chance, chance.choice(files), files)
    if chance.random() < 0.5:
        return judge_http(target.http.post("/v1/images", content=data))
    try:
        target.served.vision.Encode(
            vision_pb2.EncodeRequest(video=vision_pb2.VideoFile(data=data, num_frames=2)), timeout=CALL_S
        )
    except grpc.RpcError as error:
        return judge_grpc(error)
    return "answered"


def chat_body(url: str) -> dict[str, Any]:
    """A sound chat of many fields."""
    content = [{"type": "image_url", "image_url": {"url": url, "detail": "auto"}}, {"type": "text", "text": "what?"}]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": content}]
    return {"messages": messages, "max_tokens": 2, "temperature": 0, "top_p": 1, "seed": 1, "stop": ["x"]}


def answers_body(url: str) -> dict[str, Any]:
    """A sound answers request of many fields."""
    questions = [{"id": "a", "text": "what?", "max_tokens": 2}, {"text": "is it?", "choices": ["yes", "no"]}]
    return {"images": [url], "system": "be brief", "questions": questions, "temperature": 0, "stream": False}


def json_body(chance: random.Random, target: Target) -> str:
    """A request with hostile fields."""
    url = "data:image/png;base64," + base64.b64encode(image_files()[0]).decode()
    path, body = chance.choice(
        (("/v1/chat/completions", chat_body(url)), ("/v1/answers", answers_body(url)), ("/v1/images", {"file": "x"}))
    )
    return judge_http(target.http.post(path, content=damaged_json(chance, body), headers=JSON))


def raw_http(chance: random.Random, target: Target) -> str:
    """Damaged bytes of a whole HTTP request."""
    host, _, port = target.deployment.gateway.address.partition(":")
    path = chance.choice(("/v1/chat/completions", "/v1/answers", "/v1/images", "/v1/models", "/health"))
    body = damaged_json(chance, answers_body("image:img_0"))
    coding = chance.choice((f"Content-Length: {len(body)}", "Transfer-Encoding: chunked", "Content-Length: 5"))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{coding}\r\n\r\n".encode()
    sent = damaged(chance, head + body, [head, body])
    with contextlib.suppress(ConnectionError), socket.create_connection((host, int(port)), timeout=RAW_S) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        try:
            reply = raw.recv(65536)
        except TimeoutError:
            return "no reply"
        return _judge_raw(reply)
    return "closed"


def _judge_raw(reply: bytes) -> str:
    if not reply:
        return "closed"
    line = reply.split(b"\r\n", 1)[0].decode("latin-1")
    status = line.split(" ")[1] if line.startswith("HTTP/1.") else "?"
    if not status.isdigit() or (status[0] == "5" and status not in ("503", "504")):
        raise Breach(f"a damaged request was answered with {line!r}")
    return "answered" if status[0] == "2" else status


SERVICES: Mapping[str, ServiceDescriptor] = {
    "vision": vision_pb2.DESCRIPTOR.services_by_name["VisionService"],
    "language": language_pb2.DESCRIPTOR.services_by_name["LanguageService"],
}


@cache
def sound_messages() -> dict[str, bytes]:
    """A sound request of every type, serialised; others are empty."""
    user = language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="what?")])
    few = language_pb2.Sampling(max_tokens=2, top_p=0.9, seed=3, stop=["x"])
    question = language_pb2.Question(id="a", text="is it?", choices=["yes", "no"])
    messages = (
        language_pb2.GenerateRequest(messages=[user], sampling=few),
        language_pb2.AnswerRequest(system="be brief", questions=[question, question], sampling=few),
        language_pb2.ScoreRequest(messages=[user], choices=["yes", "no"]),
        language_pb2.ForgetImageRequest(image_id="img_" + "0" * 40),
        vision_pb2.EncodeRequest(image=image_files()[0]),
        vision_pb2.GetImageRequest(image_id="img_" + "0" * 40),
        vision_pb2.DeleteImageRequest(image_id="img_" + "0" * 40),
        vision_pb2.FetchEmbeddingRequest(image_id="img_" + "0" * 40, fingerprint="0" * 32),
    )
    return {message.DESCRIPTOR.name: message.SerializeToString() for message in messages}


def protobuf(chance: random.Random, target: Target) -> str:
    """Damaged or random bytes to any method of either worker."""
    half = chance.choice(sorted(SERVICES))
    method: MethodDescriptor = chance.choice(SERVICES[half].methods)
    sound = sound_messages().get(method.input_type.name, b"\x0a\x06public")
    sent = chance.randbytes(chance.randint(0, 200)) if chance.random() < 0.2 else damaged(chance, sound, [sound])
    channel = target.served.eyes if half == "vision" else target.served.mouth
    path = f"/{SERVICES[half].full_name}/{method.name}"
    try:
        if method.server_streaming:
            list(channel.unary_stream(path)(sent, timeout=CALL_S))
        else:
            channel.unary_unary(path)(sent, timeout=CALL_S)
    except grpc.RpcError as error:
        return judge_grpc(error)
    return "answered"


def frames(chance: random.Random, target: Target) -> str:
    """Bytes that are not HTTP/2, or begin to be, on a worker's port."""
    host, _, port = chance.choice((*target.deployment.vision, *target.deployment.language)).address.partition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
    sent = damaged(chance, preface + chance.randbytes(40), [preface, b"GET / HTTP/1.1\r\n\r\n"])
    with contextlib.suppress(ConnectionError), socket.create_connection((host, int(port)), timeout=RAW_S) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            raw.recv(4096)
    return "closed"


def entry(chance: random.Random, target: Target) -> str:
    """An image's entry, damaged in the store: the embedding that comes is the one that was there."""
    served = target.served
    data = image_files()[chance.randrange(4)]
    image_id = served.vision.Encode(vision_pb2.EncodeRequest(image=data), timeout=CALL_S).image_id
    fingerprint = served.deployment.vision_info().fingerprint
    key = f"lookonce:{{{image_id.removeprefix('img_')}}}:{fingerprint}:public"

    def read(raw: bytes) -> Entry:
        return decode(raw, expected_key=key, expected_fingerprint=fingerprint)

    sound = fetch(target, image_id, fingerprint)
    served.store.client.set(key, damaged(chance, sound, [sound, data]))
    found = fetch(target, image_id, fingerprint)
    if [tensor.data for tensor in read(found).tensors] != [tensor.data for tensor in read(sound).tensors]:
        raise Breach(f"a damaged entry of {image_id} was used")
    return "as before"


# Of a hundred inputs so many are of each kind.
KINDS: Mapping[str, tuple[Kind, int]] = {
    "image as an upload": (upload, 15),
    "image in a chat": (data_url, 10),
    "image over gRPC": (encode_call, 15),
    "video": (video_upload, 5),
    "JSON": (json_body, 20),
    "raw HTTP": (raw_http, 10),
    "protobuf": (protobuf, 15),
    "HTTP/2 frames": (frames, 3),
    "entry in the store": (entry, 7),
}
