"""lookonce's workers over gRPC, without a gateway."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from benchmarks.pictures import picture_bytes
from benchmarks.systems.asking import Once, ask_all
from benchmarks.systems.deployment import Deployment
from benchmarks.systems.system import CPU, Place, ProcessMemory
from benchmarks.workload import Answer, Outcome, Question, Workload
from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from rpc.client import channel

MESSAGE_BYTES = 64 << 20


class OverGrpc:
    """A `System`: store, vision worker, language workers."""

    name = "lookonce-grpc"

    def __init__(self, place: Place = CPU) -> None:
        self._place = place
        self.deployment = Deployment(with_gateways=False, place=place)

    def start(self, checkpoint: Path, kv_tokens: int | None = None, doors: int = 1) -> None:
        """Starts the processes."""
        self.deployment = Deployment(with_gateways=False, place=self._place)
        self.deployment.start(checkpoint, kv_tokens, doors)

    def run(self, workload: Workload) -> Outcome:
        """Encodes each picture once, then asks about it."""
        for picture in workload.pictures:
            picture_bytes(picture)
        return asyncio.run(self._run(workload))

    async def _run(self, workload: Workload) -> Outcome:
        vision = channel(self.deployment.vision, max_message_bytes=MESSAGE_BYTES)
        language = [channel(address, max_message_bytes=MESSAGE_BYTES) for address in self.deployment.language]
        client = _Client(workload, vision, language)
        try:
            return await ask_all(workload, client.ask)
        finally:
            for opened in (vision, *language):
                await opened.close(None)

    def restart(self) -> None:
        """The language workers alone."""
        self.deployment.restart_language()

    def memory(self) -> Sequence[ProcessMemory]:
        """Of every process."""
        return self.deployment.memory()

    def stop(self) -> None:
        """Ends the processes."""
        self.deployment.stop()


class _Client:
    """Asks the questions of one workload."""

    def __init__(self, workload: Workload, vision: grpc.aio.Channel, language: Sequence[grpc.aio.Channel]) -> None:
        self._workload = workload
        self._vision = vision_pb2_grpc.VisionServiceStub(vision)  # type: ignore[no-untyped-call]
        self._language = [language_pb2_grpc.LanguageServiceStub(one) for one in language]  # type: ignore[no-untyped-call]
        self._ids = Once(self._encode)

    async def _encode(self, picture: int) -> str:
        request = vision_pb2.EncodeRequest(image=picture_bytes(self._workload.pictures[picture]))
        image: vision_pb2.Image = await self._vision.Encode(request)
        return image.image_id

    async def ask(self, group: tuple[int, ...]) -> list[Answer]:
        """The answers to a group of questions about one picture."""
        questions = [self._workload.questions[place] for place in group]
        started = time.perf_counter()
        try:
            request = language_pb2.AnswerRequest(
                image_ids=[await self._ids.get(questions[0].picture)], questions=[_question(one) for one in questions]
            )
            request.without_deltas = not self._workload.is_streamed
            return await self._read(questions, self._language[questions[0].door].Answer(request), started)
        except grpc.aio.AioRpcError as exc:
            elapsed = time.perf_counter() - started
            return [Answer("", 0, elapsed, error=f"{exc.code().name}: {exc.details()}")] * len(group)

    async def _read(
        self,
        questions: Sequence[Question],
        events: "grpc.aio.UnaryStreamCall[language_pb2.AnswerRequest, language_pb2.AnswerEvent]",
        started: float,
    ) -> list[Answer]:
        first: dict[int, float] = {}
        answers: dict[int, Answer] = {}
        async for event in events:
            elapsed = time.perf_counter() - started
            first.setdefault(event.index, elapsed)
            if event.WhichOneof("event") == "done":
                answers[event.index] = _answer(event.done, elapsed, first[event.index])
            elif event.WhichOneof("event") == "error":
                answers[event.index] = Answer("", 0, elapsed, error=event.error.message)
        return [answers[index] for index in range(len(questions))]


def _question(question: Question) -> language_pb2.Question:
    return language_pb2.Question(text=question.text, choices=question.choices, max_tokens=question.max_tokens)


def _answer(done: language_pb2.Answer, elapsed: float, first_token_s: float) -> Answer:
    probabilities = tuple(choice.probability for choice in done.choices)
    return Answer(done.text, done.usage.completion_tokens, elapsed, first_token_s, probabilities)
