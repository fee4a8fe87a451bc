"""The gRPC face of the language worker: convert, call, convert."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from lm_server.adapter_registry import AdapterRegistry
from lm_server.answering import Answerer
from lm_server.pairing import Pairing
from lm_server.request_run import Done, Piece
from lm_server.requests import Ask, RequestLimits, answers_to, read_answer, read_generate, read_score
from lm_server.seam import AnsweringEngine
from lm_server.tickets import AnyAdapter
from protos import language_pb2, language_pb2_grpc
from rpc.errors import Internal, RpcError
from telemetry.metrics import snapshot


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What GetInfo tells that never changes while the worker lives."""

    model: str
    family: str
    checkpoint_config: str
    checkpoint_vision: str
    checkpoint_language: str
    dtype: str
    device: str
    hidden_size: int
    context_tokens: int
    tensors: int
    parameters: int
    bytes_read: int


class LanguageServicer(language_pb2_grpc.LanguageServiceServicer):
    """lookonce.language.v1.LanguageService."""

    def __init__(
        self,
        answerer: Answerer,
        engine: AnsweringEngine,
        pairing: Pairing,
        store: Any,
        facts: WorkerFacts,
        limits: RequestLimits,
        adapters: AdapterRegistry,
    ) -> None:
        self._answerer = answerer
        self._engine = engine
        self._pairing = pairing
        self._store = store
        self._facts = facts
        self._limits = limits
        self._adapters = adapters

    async def Generate(  # noqa: N802 - the contract's name
        self, request: language_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[language_pb2.GenerateEvent]:
        """Streams the answer to one prompt, or several answers; the failure of one of them is the call's."""
        asks = answers_to(read_generate(request, self._limits), request, self._limits)
        adapter = self._adapters.find(request.adapter)
        async with aclosing(self._answerer.answer(request.tenant, asks, adapter)) as events:
            async for event in _few(events) if request.without_deltas else events:
                if isinstance(event, Piece):
                    yield language_pb2.GenerateEvent(delta=event.text, index=event.index, logprobs=event.logprobs)
                else:
                    yield language_pb2.GenerateEvent(done=_answer_of(event), index=event.index)

    async def Answer(  # noqa: N802 - the contract's name
        self, request: language_pb2.AnswerRequest, context: Any
    ) -> AsyncIterator[language_pb2.AnswerEvent]:
        """Streams the answers to many questions about the same images."""
        asks = read_answer(request, self._limits)
        ids = [question.id or str(index) for index, question in enumerate(request.questions)]
        adapter = self._adapters.find(request.adapter)
        async with aclosing(self._answerer.answer(request.tenant, asks, adapter)) as events:
            async for event in _few(events) if request.without_deltas else events:
                yield _answer_event(event, ids[event.index])

    async def Score(  # noqa: N802 - the contract's name
        self, request: language_pb2.ScoreRequest, context: Any
    ) -> language_pb2.ScoreResponse:
        """Scores the choices of one prompt."""
        ask, adapter = read_score(request, self._limits), self._adapters.find(request.adapter)
        return language_pb2.ScoreResponse(answer=await self._only(request.tenant, ask, adapter))

    async def _only(self, tenant: str, ask: Ask, adapter: AnyAdapter | None) -> language_pb2.Answer:
        async with aclosing(self._answerer.answer(tenant, [ask], adapter)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return _answer_of(event)
        raise Internal("a question ended without an answer")

    async def ForgetImage(  # noqa: N802 - the contract's name
        self, request: language_pb2.ForgetImageRequest, context: Any
    ) -> language_pb2.ForgetImageResponse:
        """Drops what is kept of a deleted image."""
        self._answerer.forget(request.tenant, request.image_id)
        return language_pb2.ForgetImageResponse()

    async def LoadAdapter(  # noqa: N802 - the contract's name
        self, request: language_pb2.LoadAdapterRequest, context: Any
    ) -> language_pb2.Adapter:
        """Serves an adapter from a directory."""
        return (await self._adapters.load(request.name, request.path)).message()

    async def UnloadAdapter(  # noqa: N802 - the contract's name
        self, request: language_pb2.UnloadAdapterRequest, context: Any
    ) -> language_pb2.UnloadAdapterResponse:
        """Serves an adapter no longer."""
        self._adapters.unload(request.name)
        return language_pb2.UnloadAdapterResponse()

    async def GetInfo(  # noqa: N802 - the contract's name
        self, request: language_pb2.GetInfoRequest, context: Any
    ) -> language_pb2.LanguageInfo:
        """Who this worker is, whom it is paired with, and what it has counted."""
        facts, engine = self._facts, self._engine
        return language_pb2.LanguageInfo(
            model=facts.model,
            family=facts.family,
            checkpoint_config=facts.checkpoint_config,
            checkpoint_vision=facts.checkpoint_vision,
            checkpoint_language=facts.checkpoint_language,
            fingerprint=self._pairing.fingerprint or "",
            vision=[
                language_pb2.PairedWorker(
                    address=peer.address,
                    reachable=peer.is_reachable,
                    paired=peer.is_paired,
                    fingerprint=peer.fingerprint,
                    problem=peer.problem,
                    compared=peer.compared,
                )
                for peer in self._pairing.peers
            ],
            dtype=facts.dtype,
            device=facts.device,
            hidden_size=facts.hidden_size,
            context_tokens=facts.context_tokens,
            tensors=facts.tensors,
            parameters=facts.parameters,
            bytes_read=facts.bytes_read,
            kv_bytes_budget=engine.kv_bytes_budget,
            kv_bytes_used=engine.kv_bytes_used,
            max_questions=self._limits.max_questions,
            max_images=self._limits.max_images,
            running=engine.num_running,
            waiting=engine.num_waiting,
            store=self._store.scheme if self._store else "memory",
            store_healthy=self._store.healthy if self._store else True,
            counters=snapshot(),
            now=time.time(),
            adapters=[served.message() for served in self._adapters.served],
        )


def _answer_of(event: Done) -> language_pb2.Answer:
    if isinstance(event.outcome, RpcError):
        raise event.outcome
    return event.outcome


async def _few(events: AsyncIterator[Piece | Done]) -> AsyncIterator[Piece | Done]:
    """The questions' ends, and of what comes before them the first of all."""
    has_begun = False
    async for event in events:
        if isinstance(event, Done) or not has_begun:
            has_begun = True
            yield event


def _answer_event(event: Piece | Done, question_id: str) -> language_pb2.AnswerEvent:
    if isinstance(event, Piece):
        return language_pb2.AnswerEvent(index=event.index, id=question_id, delta=event.text)
    if isinstance(event.outcome, RpcError):
        error = event.outcome
        told = language_pb2.Error(code=error.code.value[0], reason=error.reason, message=error.message)
        return language_pb2.AnswerEvent(index=event.index, id=question_id, error=told)
    return language_pb2.AnswerEvent(index=event.index, id=question_id, done=event.outcome)
