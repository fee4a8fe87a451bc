"""Questions about pictures, from an item to the request, and back to rows and a table."""

import asyncio
import io
import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from lookonce.asking import COLUMNS, Asked, Asking, Shown, read_questions
from lookonce.bulk.errors import RunEnded
from lookonce.bulk.run import Run, Tally
from lookonce.bulk.sources import Album, Source, sources
from lookonce.bulk.work import Done, Item
from lookonce.client import AsyncClient, Question, Retries
from lookonce.errors import UnreadableFile
from tests.lookonce.replies import Json, answer, failed, reply


class Server:
    """A server that answers every question with "red" and remembers the requests."""

    def __init__(self, *answers: Json, status: int = 200) -> None:
        self.requests: list[Json] = []
        self._answers = answers
        self._status = status

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.requests.append(body)
        answers = self._answers or tuple(answer("red", cached=9) for _ in body["questions"])
        return httpx.Response(self._status, json=reply(*answers, states=("miss",) * len(body["images"])))

    def client(self) -> AsyncClient:
        """A client of this server."""
        return AsyncClient("http://test", retries=Retries(times=0), transport=httpx.MockTransport(self))

    def ask(self, asked: Asked, found: Source, *, as_json: bool = False) -> tuple[Tally, str, str]:
        """Asks this server: the tally, what was printed, and what of errors."""
        out, errors = (Console(file=io.StringIO(), width=160, highlight=False) for _ in range(2))
        shown = Shown(out, errors, as_json=as_json, alone=len(found) == 1)

        async def run() -> Tally:
            async with self.client() as client:
                return await Run(Asking(asked, client), shown.done, parallel=1).all(found)

        tally = asyncio.run(run())
        shown.saved(tally)
        return tally, *(console.file.getvalue() for console in (out, errors))  # type: ignore[attr-defined]

    def rows(self, asked: Asked, item: Item) -> Done:
        """What one item comes to."""

        async def run() -> Done:
            async with self.client() as client:
                return await Asking(asked, client).ask(item)

        return asyncio.run(run())


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return str(tmp_path / "a.png"), str(tmp_path / "b.jpg")


def test_each_image_is_asked_about_by_itself(pictures: tuple[str, str]) -> None:
    """Two pictures make two requests with all questions, and a section of the output each."""
    server = Server()
    tally, output, _ = server.ask(Asked(("colour?", "shape?")), sources(pictures))
    assert not tally.failed
    assert [len(request["images"]) for request in server.requests] == [1, 1]
    assert [len(request["questions"]) for request in server.requests] == [2, 2]
    assert "a.png" in output
    assert "b.jpg" in output
    assert output.count("colour?") == 2
    assert "Saved: 36 of 200 prompt tokens (18 %)" in output


def test_an_album_is_one_request(pictures: tuple[str, str]) -> None:
    """Together, the images go in one request, in order."""
    server = Server()
    _, output, _ = server.ask(Asked(("which?",)), Album(pictures))
    assert [url.split(";")[0] for url in server.requests[0]["images"]] == ["data:image/png", "data:image/jpeg"]
    assert len(server.requests) == 1
    assert "a.png, b.jpg" in output


def test_choices_and_limits_reach_the_server(pictures: tuple[str, str]) -> None:
    """Choices belong to every question, the limit to the request; neither is sent unless given."""
    server, found = Server(), sources(pictures[:1])
    server.ask(Asked(("a?", "b?"), choices=("yes", "no"), max_tokens=7), found)
    assert [question["choices"] for question in server.requests[0]["questions"]] == [["yes", "no"]] * 2
    assert server.requests[0]["max_tokens"] == 7
    server.ask(Asked(("a?",)), found)
    assert server.requests[1].keys() == {"images", "questions"}
    assert server.requests[1]["questions"] == [{"text": "a?"}]


def test_an_items_own_questions_go_first() -> None:
    """What a source asks is asked in place of the command line's questions."""
    server = Server()
    item = Item(key="k", name="n", pictures=(b"x",), questions=(Question("own?", id="q"),))
    server.rows(Asked(("a?",), choices=("yes", "no")), item)
    assert server.requests[0]["questions"] == [{"text": "own?", "id": "q"}]


def test_a_question_that_failed_is_shown_and_counts(pictures: tuple[str, str]) -> None:
    """The others' answers are shown beside it, and the image counts as failed."""
    server = Server(answer("red"), failed("it is too long"))
    tally, output, _ = server.ask(Asked(("a?", "b?")), sources(pictures[:1]))
    assert (tally.failed, tally.first_error) == (1, "it is too long")
    assert "it is too long" in output
    assert "red" in output


def test_an_image_that_failed_is_an_error_line(pictures: tuple[str, str], tmp_path: Path) -> None:
    """It is named where there are several, and the others are answered; alone its error is enough."""
    gone = str(tmp_path / "gone.png")
    tally, output, errors = Server().ask(Asked(("a?",)), sources([pictures[0], gone, pictures[1]]))
    assert tally.failed == 1
    assert "a.png" in output
    assert "b.jpg" in output
    assert errors == f"error: {gone}: cannot read the image {gone}: No such file or directory\n"
    _, output, errors = Server().ask(Asked(("a?",)), sources([gone]))
    assert (output, errors) == ("", f"error: cannot read the image {gone}: No such file or directory\n")


def test_json_is_the_raw_reply_on_a_line(pictures: tuple[str, str]) -> None:
    """With --json nothing but the replies is printed."""
    _, output, _ = Server().ask(Asked(("a?",)), sources(pictures), as_json=True)
    assert [json.loads(line)["answers"][0]["text"] for line in output.splitlines()] == ["red", "red"]


def test_markup_in_an_answer_is_text(pictures: tuple[str, str]) -> None:
    """Square brackets of a question or an answer are not taken for colours."""
    _, output, _ = Server(answer("[red]x[/red]")).ask(Asked(("[bold]?",)), sources(pictures[:1]))
    assert "[red]x[/red]" in output
    assert "[bold]?" in output


ITEM = Item(key="k", name="a.png", pictures=(b"x",), id="7")


def test_a_question_is_a_row() -> None:
    """Names, answer, scores and tokens; times are left out, so that a row is the same in every run."""
    choices = [
        {"text": "yes", "logprob": -1, "probability": 0.12345678},
        {"text": "no", "logprob": -2, "probability": 0.8},
    ]
    done = Server(answer("no", choices=choices), failed("bad")).rows(Asked(("a?", "b?")), ITEM)
    named = {"image": "a.png", "id": "7", "question_id": None, "image_id": "img_0"}
    assert done.rows == [
        {
            **named,
            "question": "a?",
            "answer": "no",
            "finish_reason": "stop",
            "probabilities": {"yes": 0.123457, "no": 0.8},
            "prompt_tokens": 50,
            "completion_tokens": 3,
        },
        {**named, "question": "b?", "finish_reason": "error", "error": "bad"},
    ]
    assert done.failed
    columns = {column.name for column in COLUMNS}
    assert all(row.keys() <= columns for row in done.rows)


def test_an_image_that_failed_has_a_row_for_every_question() -> None:
    """Results have as many rows as there were questions, whatever happened."""
    done = Asking(Asked(("a?", "b?")), Server().client()).failed(ITEM, "no image")
    assert [(row["question"], row["error"]) for row in done.rows] == [("a?", "no image"), ("b?", "no image")]
    assert done.failed


def test_nothing_to_ask_is_a_fault_of_the_item() -> None:
    """A record without questions, and no -q: its row says what is missing."""
    server = Server()
    done = server.rows(Asked(()), ITEM)
    assert (done.failed, server.requests) == (True, [])
    assert "there is no question" in done.rows[0]["error"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_taken_ends_the_run(status: int) -> None:
    """A million images are not sent to somebody who refuses all of them."""
    with pytest.raises(RunEnded, match=f"refused \\({status}\\)"):
        Server(status=status).rows(Asked(("a?",)), ITEM)


def test_a_server_that_is_gone_ends_the_run() -> None:
    """After the retries nobody else is tried; one image that took too long does not end it."""

    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("gone") if "a?" in request.content.decode() else httpx.ReadTimeout("slow")

    async def run(question: str) -> None:
        transport = httpx.MockTransport(lost)
        async with AsyncClient("http://test", retries=Retries(times=0), transport=transport) as client:
            await Asking(Asked((question,)), client).ask(ITEM)

    with pytest.raises(RunEnded, match="nothing answers"):
        asyncio.run(run("a?"))
    with pytest.raises(Exception, match="did not answer in") as caught:
        asyncio.run(run("b?"))
    assert not isinstance(caught.value, RunEnded)


def test_questions_are_the_lines_that_hold_something(tmp_path: Path) -> None:
    """Empty lines and spaces around a question mean nothing."""
    file = tmp_path / "questions"
    file.write_text("one?\n\n  two?  \n# three?\n")
    assert read_questions(file) == ["one?", "two?", "# three?"]


def test_a_file_of_questions_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing list of questions is one clear line."""
    with pytest.raises(UnreadableFile, match=r"gone\.txt: No such file"):
        read_questions(tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9?")
    with pytest.raises(UnreadableFile, match="not UTF-8"):
        read_questions(tmp_path / "latin.txt")
