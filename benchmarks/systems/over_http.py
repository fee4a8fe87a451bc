"""lookonce over HTTP, as a user meets it: every process, and `/v1/answers` of the gateway."""

import asyncio
import base64
import functools
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pictures import picture_bytes
from benchmarks.systems.asking import Once, ask_all
from benchmarks.systems.deployment import Deployment
from benchmarks.systems.http_calls import FAILURES, Calls, Refused
from benchmarks.systems.system import CPU, Place, ProcessMemory
from benchmarks.workload import Answer, Outcome, Question, Workload

DATA = b"data: "
END = b"[DONE]"


class OverHttp:
    """A `System`: store, vision worker, language workers, and a gateway before each of these.

    `more` is of the `Deployment`.
    """

    def __init__(self, place: Place = CPU, name: str = "lookonce-http", **more: Any) -> None:
        self.name = name
        self._new = functools.partial(Deployment, with_gateways=True, place=place, **more)
        self.deployment = self._new()

    def start(self, checkpoint: Path, kv_tokens: int | None = None, doors: int = 1) -> None:
        """Starts the processes."""
        self.deployment = self._new()
        self.deployment.start(checkpoint, kv_tokens, doors)

    def run(self, workload: Workload) -> Outcome:
        """Asks the gateways; the pictures are sent inside the run."""
        for picture in workload.pictures:
            picture_bytes(picture)
        return asyncio.run(self._run(workload))

    async def _run(self, workload: Workload) -> Outcome:
        calls = Calls()
        try:
            return await ask_all(workload, _Client(workload, calls, self.deployment.gateways).ask)
        finally:
            await calls.close()

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

    def __init__(self, workload: Workload, calls: Calls, gateways: Sequence[str]) -> None:
        self._workload = workload
        self._calls = calls
        self._gateways = gateways
        self._ids = Once(self._upload)

    async def _upload(self, picture: int) -> str:
        content = picture_bytes(self._workload.pictures[picture])
        reply = await self._calls.post(f"{self._gateways[0]}/v1/images", content, "image/png")
        return f"image:{json.loads(reply)['id']}"

    async def ask(self, group: tuple[int, ...]) -> list[Answer]:
        """The answers to a group of questions about one picture."""
        questions = [self._workload.questions[place] for place in group]
        url = f"{self._gateways[questions[0].door]}/v1/answers"
        started = time.perf_counter()
        try:
            body = {
                "images": [await self._image(questions[0].picture)],
                "questions": [_question(question) for question in questions],
            }
            if self._workload.is_streamed:
                return await self._streamed(url, body, len(questions), started)
            reply = await self._calls.post(url, json.dumps(body).encode(), "application/json")
            elapsed = time.perf_counter() - started
            return [_answer(answer, elapsed, None) for answer in json.loads(reply)["answers"]]
        except Refused as exc:
            return [Answer("", 0, time.perf_counter() - started, error=str(exc))] * len(group)
        except FAILURES as exc:
            elapsed = time.perf_counter() - started
            return [Answer("", 0, elapsed, error=f"{type(exc).__name__}: {exc}")] * len(group)

    async def _image(self, picture: int) -> str:
        """Inside the request where it is the only one about the picture, else uploaded before."""
        if not self._workload.is_burst or self._workload.doors > 1:
            return await self._ids.get(picture)
        data = base64.b64encode(picture_bytes(self._workload.pictures[picture])).decode()
        return f"data:image/png;base64,{data}"

    async def _streamed(self, url: str, body: dict[str, Any], count: int, started: float) -> list[Answer]:
        first: dict[int, float] = {}
        answers: dict[int, Answer] = {}
        content = json.dumps({**body, "stream": True}).encode()
        async with self._calls.posted(url, content, "application/json") as pieces:
            async for event in _events(pieces):
                elapsed = time.perf_counter() - started
                if "index" not in event:
                    continue
                first.setdefault(event["index"], elapsed)
                if event["object"] == "answers.answer":
                    answers[event["index"]] = _answer(event, elapsed, first[event["index"]])
        missing = Answer("", 0, time.perf_counter() - started, error="the stream ended early")
        return [answers.get(index, missing) for index in range(count)]


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event, the last one apart."""
    begun = b""
    async for piece in pieces:
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            if line.startswith(DATA) and line != DATA + END:
                yield json.loads(line.removeprefix(DATA))


def _question(question: Question) -> dict[str, Any]:
    choices = {"choices": list(question.choices)} if question.choices else {}
    return {"text": question.text, "max_tokens": question.max_tokens, **choices}


def _answer(body: dict[str, Any], elapsed: float, first_token_s: float | None) -> Answer:
    if body.get("error"):
        return Answer("", 0, elapsed, error=body["error"]["message"])
    probabilities = tuple(choice["probability"] for choice in body.get("choices") or ())
    return Answer(body["text"], body["usage"]["completion_tokens"], elapsed, first_token_s, probabilities)
