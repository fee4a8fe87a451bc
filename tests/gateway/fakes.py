"""Scripted vision and language workers: real gRPC servers on loopback whose replies a test decides."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from rpc.errors import NotFound, RpcError
from rpc.server import GrpcServer

IMAGE_TOKENS = 16
PROMPT_TOKENS = 24


def image_id(data: bytes) -> str:
    """The id that the fake vision worker makes of an image."""
    return "img_" + hashlib.sha256(data).hexdigest()[:32]


class FakeVision(vision_pb2_grpc.VisionServiceServicer):
    """Takes any bytes for an image, except what a test has it refuse."""

    def __init__(self) -> None:
        self.images: dict[tuple[str, str], vision_pb2.Image] = {}
        self.encoded: list[bytes] = []
        self.videos: list[vision_pb2.EncodeRequest] = []
        self.errors: dict[bytes, RpcError] = {}
        self.error: RpcError | None = None
        self.most_at_once = 0
        self.cancelled = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.info = vision_pb2.VisionInfo(
            model="tiny",
            fingerprint="f1",
            store="redis",
            store_healthy=True,
            counters={"lookonce_images_encoded_total": 3},
        )
        self._at_once = 0

    async def Encode(self, request: vision_pb2.EncodeRequest, context: Any) -> vision_pb2.Image:  # noqa: N802
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(0.01)
            if self.hold is not None:
                await self.hold.wait()
            return self._encode(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self._at_once -= 1

    def _encode(self, request: vision_pb2.EncodeRequest) -> vision_pb2.Image:
        error = self.errors.get(request.image, self.error)
        if error is not None:
            raise error
        shown = request.image
        if request.WhichOneof("source") != "image":
            self.videos.append(request)
            shown = request.SerializeToString(deterministic=True)
        key = (request.tenant, image_id(shown))
        cached = key in self.images
        if not cached:
            self.encoded.append(request.image)
        self.images[key] = vision_pb2.Image(
            image_id=key[1],
            width=30,
            height=20,
            bytes=len(request.image),
            image_tokens=IMAGE_TOKENS,
            cached=cached,
            created=1_700_000_000,
            expires_at=1_700_003_600,
            timestamps=() if request.image else (0.25, 1.25),
            seconds_per_grid=0.0 if request.image else 1.0,
        )
        return self.images[key]

    async def GetImage(self, request: vision_pb2.GetImageRequest, context: Any) -> vision_pb2.Image:  # noqa: N802
        image = self.images.get((request.tenant, request.image_id))
        if image is None:
            raise NotFound("there is no such image")
        return image

    async def DeleteImage(  # noqa: N802
        self, request: vision_pb2.DeleteImageRequest, context: Any
    ) -> vision_pb2.DeleteImageResponse:
        found = self.images.pop((request.tenant, request.image_id), None)
        return vision_pb2.DeleteImageResponse(deleted=found is not None)

    async def GetInfo(self, request: vision_pb2.GetInfoRequest, context: Any) -> vision_pb2.VisionInfo:  # noqa: N802
        if self.error is not None:
            raise self.error
        return self.info


def usage(cached_tokens: int = 0, image_tokens: int = IMAGE_TOKENS) -> language_pb2.Usage:
    """Usage of an answer of three tokens."""
    return language_pb2.Usage(
        prompt_tokens=PROMPT_TOKENS, completion_tokens=3, cached_tokens=cached_tokens, image_tokens=image_tokens
    )


def answer(text: str, *, cached_tokens: int = 0, sources: tuple[int, ...] = ()) -> language_pb2.Answer:
    """A finished answer."""
    return language_pb2.Answer(
        text=text,
        finish_reason="stop",
        usage=usage(cached_tokens),
        image_sources=sources,
        time_to_first_token_s=0.25,
        time_s=0.5,
    )


def token(spelt: bytes, num_top: int) -> language_pb2.TokenLogprob:
    """A token that came with its log-probability, and so many beside it."""
    top = [language_pb2.TopLogprob(token=b"\xe5%d" % number, logprob=-number - 0.5) for number in range(num_top)]
    return language_pb2.TokenLogprob(token=spelt, logprob=-0.5, top=top)


Script = Callable[[Any], AsyncIterator[Any]]


class FakeLanguage(language_pb2_grpc.LanguageServiceServicer):
    """Answers `echo: …` in pieces, unless a test gives it a script."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.forgotten: list[tuple[str, str]] = []
        self.script: Script | None = None
        self.error: RpcError | None = None
        self.adapter_error: RpcError | None = None
        self.cancelled = asyncio.Event()
        self.info = language_pb2.LanguageInfo(
            model="tiny",
            fingerprint="f1",
            store="redis",
            store_healthy=True,
            counters={"lookonce_prefix_tokens_reused_total": 7, 'lookonce_steps_total{kind="decode"}': 5},
        )

    async def Generate(self, request: language_pb2.GenerateRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for event in self._run(request, self._generate):
            yield event

    async def Answer(self, request: language_pb2.AnswerRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for event in self._run(request, self._answer):
            yield event

    async def ForgetImage(  # noqa: N802
        self, request: language_pb2.ForgetImageRequest, context: Any
    ) -> language_pb2.ForgetImageResponse:
        self.forgotten.append((request.tenant, request.image_id))
        return language_pb2.ForgetImageResponse()

    async def LoadAdapter(  # noqa: N802
        self, request: language_pb2.LoadAdapterRequest, context: Any
    ) -> language_pb2.Adapter:
        if self.adapter_error is not None:
            raise self.adapter_error
        adapter = language_pb2.Adapter(name=request.name, path=request.path, rank=8, bytes=4096, created=1_700_000_000)
        self._drop(request.name)
        self.info.adapters.append(adapter)
        return adapter

    async def UnloadAdapter(  # noqa: N802
        self, request: language_pb2.UnloadAdapterRequest, context: Any
    ) -> language_pb2.UnloadAdapterResponse:
        if self.adapter_error is not None:
            raise self.adapter_error
        if not self._drop(request.name):
            raise NotFound("there is no such adapter", reason="MODEL_NOT_FOUND")
        return language_pb2.UnloadAdapterResponse()

    def _drop(self, name: str) -> bool:
        kept = [adapter for adapter in self.info.adapters if adapter.name != name]
        is_there = len(kept) < len(self.info.adapters)
        del self.info.adapters[:]
        self.info.adapters.extend(kept)
        return is_there

    async def GetInfo(self, request: language_pb2.GetInfoRequest, context: Any) -> language_pb2.LanguageInfo:  # noqa: N802
        return self.info

    async def _run(self, request: Any, default: Script) -> AsyncIterator[Any]:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        try:
            async for event in (self.script or default)(request):
                yield event
        except (asyncio.CancelledError, GeneratorExit):  # the latter where the call ended while an event was sent
            self.cancelled.set()
            raise

    async def _generate(self, request: language_pb2.GenerateRequest) -> AsyncIterator[language_pb2.GenerateEvent]:
        parts = [part for message in request.messages for part in message.content]
        text = "echo: " + " ".join(part.text for part in parts if part.text)
        images = sum(1 for part in parts if part.image_id)
        sources = (language_pb2.IMAGE_SOURCE_STORE,) * images
        pieces, asked = (text[:6], text[6:]), request.sampling.HasField("top_logprobs")
        tokens = [token(piece.encode(), request.sampling.top_logprobs) for piece in pieces] if asked else []
        answers = range(request.n if request.HasField("n") else 1)
        for piece, told in zip(pieces, tokens or (None, None), strict=True):
            for index in reversed(answers):
                yield language_pb2.GenerateEvent(delta=piece, index=index, logprobs=[told] if told else [])
        for index in reversed(answers):
            done = answer(text, cached_tokens=4 if index == 0 else PROMPT_TOKENS - 1, sources=sources)
            done.finish_reason = "length" if index else "stop"
            done.logprobs.extend(tokens)
            yield language_pb2.GenerateEvent(done=done, index=index)

    async def _answer(self, request: language_pb2.AnswerRequest) -> AsyncIterator[language_pb2.AnswerEvent]:
        for place in reversed(range(len(request.questions))):
            question = request.questions[place]
            done = answer(f"echo: {question.text}", cached_tokens=0 if place == 0 else IMAGE_TOKENS)
            done.image_sources.extend([language_pb2.IMAGE_SOURCE_STORE] * len(request.image_ids))
            if question.choices:
                done.text = question.choices[0]
                share = 1 / len(question.choices)
                done.choices.extend(
                    language_pb2.Choice(text=text, logprob=-1.5, probability=share) for text in question.choices
                )
            else:
                yield language_pb2.AnswerEvent(index=place, id=question.id, delta="echo: ")
                yield language_pb2.AnswerEvent(index=place, id=question.id, delta=question.text)
            yield language_pb2.AnswerEvent(index=place, id=question.id, done=done)


async def start_vision(fake: FakeVision) -> tuple[GrpcServer, str]:
    """Serves a fake vision worker; its server and address."""
    server = GrpcServer(("lookonce.vision.v1.VisionService",), max_message_bytes=8 * 1024 * 1024)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(fake, server.server)
    return server, f"127.0.0.1:{await server.start('127.0.0.1:0')}"


async def start_language(fake: FakeLanguage) -> tuple[GrpcServer, str]:
    """Serves a fake language worker; its server and address."""
    server = GrpcServer(("lookonce.language.v1.LanguageService",), max_message_bytes=8 * 1024 * 1024)
    language_pb2_grpc.add_LanguageServiceServicer_to_server(fake, server.server)
    return server, f"127.0.0.1:{await server.start('127.0.0.1:0')}"
