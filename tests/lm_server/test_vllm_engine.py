"""The engine around vLLM, over a client of the test's own: what is asked, told, refused, aborted and forgotten."""

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cache import VideoTimes
from lm_server.constraints import Constraint
from lm_server.sampler import Sampling
from lm_server.seam import EngineUnusable
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Work
from lm_server.vllm_client import OutputPulse, VllmDead, VllmRefused
from lm_server.vllm_engine import VllmEngine
from lm_server.vllm_half import VllmHalf, examine
from rpc.errors import Internal, InvalidArgument, Overloaded, RpcError, Unavailable
from tests.deployment import wait_until
from tests.families import make
from tests.lm_server.test_vllm_half import settings
from tests.lm_server.workshop import Workshop, ask

WAIT_S = 30.0
Answering = Callable[["FakeClient", Mapping[str, Any]], AsyncGenerator[Any, None]]


class FakeClient:
    """Stands for vLLM: says what `answering` says, and keeps what it was asked."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked: list[tuple[Mapping[str, Any], Mapping[str, Any], Any]] = []
        self.num_aborted = 0
        self.is_closed = False
        self.is_dead = False
        self.num_expanded = 0

    async def prepare(self) -> None:
        """It is ready."""

    async def ask(
        self, prompt: Mapping[str, Any], sampling: Mapping[str, Any], form: Any = None, adapter: Any = None
    ) -> AsyncGenerator[Any, None]:
        self.asked.append((prompt, sampling, form))
        try:
            async for output in self.answering(self, prompt):
                yield output
        except (GeneratorExit, asyncio.CancelledError):
            self.num_aborted += 1
            raise

    def output(self, prompt: Mapping[str, Any], *tokens: int, **more: Any) -> Any:
        completion = {"token_ids": tokens, "logprobs": None, "finish_reason": None, **more}
        length = len(prompt["prompt_token_ids"]) + self.num_expanded
        told = {"prompt_token_ids": [0] * length, "num_cached_tokens": 3}
        return SimpleNamespace(outputs=[SimpleNamespace(**completion)], **told)

    def close(self) -> None:
        self.is_closed = True


async def three_tokens(client: FakeClient, prompt: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
    for token in (40, 41, 42):
        yield client.output(prompt, token)
    await asyncio.sleep(WAIT_S)


async def nothing(client: FakeClient, prompt: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
    await asyncio.sleep(WAIT_S)
    yield client.output(prompt, 40)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> VllmHalf:
    return examine(settings(make("qwen2_vl", tmp_path_factory.mktemp("model"), wide_heads=True)))


@pytest.fixture(scope="module")
def shop(half: VllmHalf) -> Workshop:
    return Workshop(Path(half.arguments["model"]))


@contextmanager
def running(
    half: VllmHalf, shop: Workshop, answering: Answering, **more: Any
) -> Iterator[tuple[VllmEngine, FakeClient]]:
    client = FakeClient(answering)
    options = {"max_questions": 4, "end_tokens": shop.end_tokens, **more}
    engine = VllmEngine(half, shop.tokenizer, open_client=lambda *_: client, **options)  # type: ignore[arg-type,return-value]
    engine.start()
    try:
        yield engine, client
    finally:
        engine.stop()


def submit(engine: VllmEngine, work: Work) -> tuple[Any, "queue.SimpleQueue[Event]"]:
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    [ticket] = engine.submit([work], [events.put])
    return ticket, events


def follow(events: "queue.SimpleQueue[Event]") -> tuple[str, Finished]:
    text = ""
    while True:
        event = events.get(timeout=WAIT_S)
        if isinstance(event, Finished):
            return text, event
        assert isinstance(event, Delta), event
        text += event.text


def failure(events: "queue.SimpleQueue[Event]") -> RpcError:
    event = events.get(timeout=WAIT_S)
    assert isinstance(event, Failed), event
    return event.error


def test_an_answer_ends_at_its_length_and_the_rest_is_aborted(half: VllmHalf, shop: Workshop) -> None:
    """Text comes as its tokens do; what vLLM would still say is not waited for."""
    with running(half, shop, three_tokens) as (engine, client):
        _, events = submit(engine, shop.work(ask("Hi."), max_tokens=3))
        text, finished = follow(events)
        assert text == shop.tokenizer.decode([40, 41, 42])
        assert (finished.finish_reason, finished.num_generated, finished.cached_tokens) == ("length", 3, 3)
        wait_until(lambda: client.num_aborted == 1, "the request to be aborted", WAIT_S)
    assert client.is_closed


def test_an_end_token_and_a_stop_string_end_an_answer(half: VllmHalf, shop: Workshop) -> None:
    """Neither is part of the text, and both count as stop."""
    end = min(shop.end_tokens)

    async def ended(client: FakeClient, prompt: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield client.output(prompt, 40, end, finish_reason="stop")

    with running(half, shop, ended) as (engine, _):
        text, finished = follow(submit(engine, shop.work(ask("Hi."), max_tokens=9))[1])
        assert (text, finished.finish_reason) == (shop.tokenizer.decode([40]), "stop")
    stop = shop.tokenizer.decode([41])
    with running(half, shop, three_tokens) as (engine, _):
        work = shop.work(ask("Hi."), max_tokens=9, sampling=Sampling(stop=(stop,)))
        text, finished = follow(submit(engine, work)[1])
        assert (text, finished.finish_reason) == (shop.tokenizer.decode([40]), "stop")


def test_embeddings_that_are_not_there_are_asked_for_and_sent(half: VllmHalf, shop: Workshop) -> None:
    """No question goes to vLLM before every image's embedding is there, though it may have the prefix."""
    with running(half, shop, three_tokens) as (engine, client):
        case = ask("Which?", 1, 2, 1)
        work = shop.work(case, max_tokens=3)
        embeddings = work.embeddings
        client.num_expanded = sum(span.num_tokens - 1 for span in work.prompt.images)
        ticket, events = submit(engine, shop.work(case, max_tokens=3, embeddings={}))
        assert events.get(timeout=WAIT_S) == LackingImages(("img_1", "img_2"))
        assert client.asked == []
        engine.supply(ticket, embeddings)
        follow(events)
        [(prompt, _, _)] = client.asked
        grids = [list(shop.image(number)[0].grid) for number in (1, 2, 1)]
        assert prompt["multi_modal_data"]["image"]["image_grid_thw"].tolist() == grids


def test_another_layout_than_ours_is_an_error(half: VllmHalf, shop: Workshop) -> None:
    """Where vLLM expands an image to another number of tokens, no answer is given."""
    with running(half, shop, three_tokens) as (engine, _):
        error = failure(submit(engine, shop.work(ask("What?", 1), max_tokens=3))[1])
        assert isinstance(error, Internal)
        assert "lays this prompt out in another way" in error.message


def test_a_cancelled_question_is_aborted_and_its_place_is_free(half: VllmHalf, shop: Workshop) -> None:
    """Who leaves ends vLLM's work on the question, and another can come."""
    with running(half, shop, nothing, max_questions=1) as (engine, client):
        ticket, _ = submit(engine, shop.work(ask("Hi."), max_tokens=3))
        wait_until(lambda: bool(client.asked), "vLLM to be asked", WAIT_S)
        with pytest.raises(Overloaded):
            engine.check_room(1, "public")
        engine.cancel(ticket)
        wait_until(lambda: client.num_aborted == 1, "the request to be aborted", WAIT_S)
        engine.check_room(1, "public")


def test_a_form_that_vllm_refuses_is_named(half: VllmHalf, shop: Workshop) -> None:
    """A refusal is told in our words, by the kind of constraint, and costs that question alone."""

    async def refused(client: FakeClient, prompt: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        raise VllmRefused("words of vLLM's")
        yield

    with running(half, shop, refused) as (engine, client):
        work = shop.work(ask("Hi."), max_tokens=3, constraint=Constraint("regex", ("a",)))
        error = failure(submit(engine, work)[1])
        assert client.asked[0][2] == {"regex": "a"}
        assert isinstance(error, InvalidArgument)
        assert error.message.startswith("regex: ")
        assert "words" not in error.message


def test_where_vllm_dies_nobody_is_left_waiting(half: VllmHalf, shop: Workshop) -> None:
    """Every question is turned away, also those that come later, and whoever runs the engine is told once."""
    dies = threading.Event()

    async def dead(client: FakeClient, prompt: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        await asyncio.to_thread(dies.wait, WAIT_S)
        raise VllmDead
        yield

    broken: list[bool] = []
    with running(half, shop, dead, on_broken=lambda: broken.append(True)) as (engine, client):
        asked = [submit(engine, shop.work(ask("Hi."), max_tokens=3))[1] for _ in range(2)]
        wait_until(lambda: len(client.asked) == 2, "vLLM to be asked", WAIT_S)
        dies.set()
        late = submit(engine, shop.work(ask("Hi."), max_tokens=3))[1]
        assert all(isinstance(failure(events), Unavailable) for events in (*asked, late))
        assert engine.is_broken
    assert broken == [True]


def test_where_vllm_dies_while_nothing_is_asked_it_is_noticed(half: VllmHalf, shop: Workshop) -> None:
    """A worker that can answer nothing leaves before the next question finds out."""
    broken = threading.Event()
    with running(half, shop, nothing, on_broken=broken.set) as (engine, client):
        client.is_dead = True
        assert broken.wait(WAIT_S)
        assert engine.is_broken


def test_what_cannot_start_says_so(half: VllmHalf, shop: Workshop) -> None:
    """A vLLM that does not start is an error of the start, and not a worker that never answers."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("no room")

    engine = VllmEngine(half, shop.tokenizer, end_tokens=(), max_questions=1, open_client=fails)
    with pytest.raises(EngineUnusable, match="vLLM cannot serve this checkpoint"):
        engine.start()
    engine.stop()


def test_a_video_is_refused(half: VllmHalf, shop: Workshop) -> None:
    """It would be laid out as a still image, and silently wrong."""
    plain = shop.work(ask("What is it?", 1), max_tokens=1)
    [span] = plain.prompt.images
    moving = replace(span, image=replace(span.image, video=VideoTimes((0.5,), 1.0)))
    with pytest.raises(InvalidArgument, match="videos"):
        VllmEngine(half, shop.tokenizer, end_tokens=(), max_questions=1).check(
            replace(plain, prompt=replace(plain.prompt, images=(moving,)))
        )


def test_too_long_a_question_is_refused(half: VllmHalf, shop: Workshop) -> None:
    """Prompt and answer are held to the context that vLLM was started with."""
    engine = VllmEngine(half, shop.tokenizer, end_tokens=(), max_questions=1)
    with pytest.raises(InvalidArgument) as caught:
        engine.check(shop.work(ask("Hi."), max_tokens=half.context_tokens))
    assert caught.value.reason == "CONTEXT_LENGTH_EXCEEDED"


def test_the_pulse_tells_of_outputs_that_are_owed() -> None:
    """Nothing is owed while nothing is asked."""
    pulse = OutputPulse()
    assert pulse.busy_s == 0.0
    pulse.note(1)
    wait_until(lambda: pulse.busy_s > 0.0, "time to pass", WAIT_S)
    pulse.note(0)
    assert pulse.busy_s == 0.0


def test_processes_end_with_the_one_that_started_them() -> None:
    """Killed without a word, a worker still takes vLLM's processes with it."""
    script = (
        "import subprocess, sys; from lm_server.vllm_tether import Tether\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "tether = Tether([child.pid]); print(child.pid, flush=True); sys.stdin.read()"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        wait_until(lambda: len(psutil.Process(worker.pid).children()) == 2, "the tether to start", WAIT_S)
        [tether] = [each for each in psutil.Process(worker.pid).children() if each.pid != child.pid]
        wait_until(lambda: any("pidfd" in file for file in _descriptors(tether.pid)), "it to watch", WAIT_S)
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not child.is_running(), "the child to end", WAIT_S)


def _descriptors(pid: int) -> list[str]:
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # One that was open a moment ago may be closed now.
        with suppress(FileNotFoundError):
            found.append(os.readlink(file))
    return found
