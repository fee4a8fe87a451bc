"""What language workers said of their full queues, and the requests that are refused for it at the door."""

import asyncio

import pytest

from gateway.fullness import REMEMBERED_S, Fullness
from protos import language_pb2
from rpc.errors import NO_ROOM, Overloaded
from tests.gateway.conftest import Line, until

FULL = Overloaded("48 questions are being answered already", NO_ROOM, retry_after_s=7)
ASKED = {"questions": [{"text": "What is this?"}]}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_refusal_counts_for_its_tenant_and_as_many_questions() -> None:
    """Fewer questions, another tenant's, and those that another worker may take are to be asked."""
    fullness = Fullness(Clock())
    fullness.refused("a", "greedy", 3, FULL)
    assert fullness.refusal(["a"], "greedy", 3) is FULL
    assert fullness.refusal(["a"], "greedy", 4) is FULL
    assert fullness.refusal(["a"], "greedy", 2) is None
    assert fullness.refusal(["a"], "modest", 3) is None
    assert fullness.refusal(["a", "b"], "greedy", 3) is None
    assert fullness.refusal([], "greedy", 3) is None


def test_a_refusal_ends_with_a_free_place_or_a_moment_later() -> None:
    """A place that another gateway's question leaves is found too."""
    clock = Clock()
    fullness = Fullness(clock)
    fullness.refused("a", "greedy", 1, FULL)
    fullness.freed("b")
    assert fullness.refusal(["a"], "greedy") is FULL
    fullness.freed("a")
    assert fullness.refusal(["a"], "greedy") is None
    fullness.refused("a", "greedy", 1, FULL)
    clock.now_s += REMEMBERED_S
    assert fullness.refusal(["a"], "greedy") is None


def test_the_least_that_was_too_much_counts() -> None:
    """A later refusal of more questions does not let fewer through, unless the earlier one is over."""
    clock = Clock()
    fullness = Fullness(clock)
    fullness.refused("a", "greedy", 1, FULL)
    fullness.refused("a", "greedy", 5, FULL)
    assert fullness.refusal(["a"], "greedy", 1) is FULL
    clock.now_s += REMEMBERED_S
    fullness.refused("a", "greedy", 5, FULL)
    assert fullness.refusal(["a"], "greedy", 1) is None


async def with_full_worker(line: Line) -> None:
    """The line's worker is known to be well and says that it is full; what it said is remembered until it is freed."""
    workers = line.app.state.service.language
    workers.fullness = Fullness(Clock())
    await until(lambda: workers.well_since(workers.addresses[0]) is not None)
    line.language.error = FULL
    assert (await line.post("/v1/answers", ASKED)).status_code == 503


@pytest.mark.parametrize("path", ["/v1/answers", "/v1/chat/completions", "/v1/moderations"])
async def test_a_full_worker_is_not_asked_again(line: Line, path: str) -> None:
    """Whatever would ask it is refused unread, with its own time to try again, and counted under its route."""
    await with_full_worker(line)
    # Far over what sockets hold: a client that is still sending hears of it too.
    refused = await line.client.post(path, content=bytes(8 << 20))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
    assert refused.json()["error"]["code"] == "overloaded"
    assert len(line.language.requests) == 1
    assert f'route="{path}",status="503"' in (await line.client.get("/metrics")).text.replace('method="POST",', "")
    assert (await line.client.post("/v1/images", content=b"x")).status_code == 200


async def test_many_questions_that_had_no_room_leave_their_image_alone(line: Line) -> None:
    """What was too many is refused before any image is encoded for it; fewer are passed on."""
    await with_full_worker(line)
    workers = line.app.state.service.language
    workers.fullness.freed(workers.addresses[0])
    many = {"images": ["data:image/png;base64,eA=="], "questions": [{"text": "a"}, {"text": "b"}]}
    assert (await line.post("/v1/answers", many)).status_code == 503
    assert (await line.post("/v1/answers", many)).status_code == 503
    assert (len(line.language.requests), len(line.vision.images)) == (2, 1)
    line.language.error = None
    assert (await line.post("/v1/answers", {**many, "questions": many["questions"][:1]})).status_code == 200


async def test_a_question_that_ends_opens_the_door(line: Line) -> None:
    """When one of the questions under way is answered, the worker is asked again."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: language_pb2.AnswerRequest):  # type: ignore[no-untyped-def]
        begun.set()
        await go_on.wait()
        yield language_pb2.AnswerEvent(done=language_pb2.Answer(text="late", finish_reason="stop"))

    line.language.script = slowly
    first = asyncio.create_task(line.post("/v1/answers", ASKED))
    await begun.wait()
    await with_full_worker(line)
    line.language.error = None
    assert (await line.post("/v1/answers", ASKED)).status_code == 503
    go_on.set()
    assert (await first).status_code == 200
    assert (await line.post("/v1/answers", ASKED)).status_code == 200
