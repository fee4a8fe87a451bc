"""Questions about pictures, from the command line to the request and back to a table."""

import base64
import io
import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from lookonce.asking import Asked, Shown, ask, image_url, read_questions
from lookonce.client import Client
from lookonce.errors import UnreadableFile
from tests.lookonce.replies import Json, answer, failed, reply


class Server:
    """A server that answers every question with "red" and remembers the requests."""

    def __init__(self, *answers: Json) -> None:
        self.requests: list[Json] = []
        self._answers = answers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.requests.append(body)
        answers = self._answers or tuple(answer("red", cached=9) for _ in body["questions"])
        return httpx.Response(200, json=reply(*answers, states=("miss",) * len(body["images"])))

    def ask(self, asked: Asked, *, as_json: bool = False) -> tuple[bool, str]:
        """Asks this server; whether all was answered, and what was printed."""
        console = Console(file=io.StringIO(), width=160)
        with Client("http://test", transport=httpx.MockTransport(self)) as client:
            answered = ask(asked, client, Shown(console, as_json=as_json))
        assert isinstance(console.file, io.StringIO)
        return answered, console.file.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return str(tmp_path / "a.png"), str(tmp_path / "b.jpg")


def test_each_image_is_asked_about_by_itself(pictures: tuple[str, str]) -> None:
    """Two pictures make two requests with all questions, and a section of the output each."""
    server = Server()
    answered, output = server.ask(Asked(pictures, ("colour?", "shape?")))
    assert answered
    assert [len(request["images"]) for request in server.requests] == [1, 1]
    assert [len(request["questions"]) for request in server.requests] == [2, 2]
    assert "a.png" in output
    assert "b.jpg" in output
    assert output.count("colour?") == 2
    assert "Saved: 36 of 200 prompt tokens (18 %)" in output


def test_an_album_is_one_request(pictures: tuple[str, str]) -> None:
    """Together, the images go in one request, in order."""
    server = Server()
    server.ask(Asked(pictures, ("which?",), together=True))
    assert [url.split(";")[0] for url in server.requests[0]["images"]] == ["data:image/png", "data:image/jpeg"]
    assert len(server.requests) == 1


def test_choices_and_limits_reach_the_server(pictures: tuple[str, str]) -> None:
    """Choices belong to every question, the limit to the request; neither is sent unless given."""
    server = Server()
    server.ask(Asked(pictures[:1], ("a?", "b?"), choices=("yes", "no"), max_tokens=7))
    assert [question["choices"] for question in server.requests[0]["questions"]] == [["yes", "no"]] * 2
    assert server.requests[0]["max_tokens"] == 7
    server.ask(Asked(pictures[:1], ("a?",)))
    assert server.requests[1].keys() == {"images", "questions"}
    assert server.requests[1]["questions"] == [{"text": "a?"}]


def test_a_question_that_failed_is_shown_and_counts(pictures: tuple[str, str]) -> None:
    """The others' answers are shown beside it, and the result is not success."""
    answered, output = Server(answer("red"), failed("it is too long")).ask(Asked(pictures[:1], ("a?", "b?")))
    assert not answered
    assert "it is too long" in output
    assert "red" in output


def test_json_is_the_raw_reply_on_a_line(pictures: tuple[str, str]) -> None:
    """With --json nothing but the replies is printed."""
    _, output = Server().ask(Asked(pictures, ("a?",)), as_json=True)
    assert [json.loads(line)["answers"][0]["text"] for line in output.splitlines()] == ["red", "red"]


def test_markup_in_an_answer_is_text(pictures: tuple[str, str]) -> None:
    """Square brackets of a question or an answer are not taken for colours."""
    _, output = Server(answer("[red]x[/red]")).ask(Asked(pictures[:1], ("[bold]?",)))
    assert "[red]x[/red]" in output
    assert "[bold]?" in output


def test_a_picture_becomes_a_data_url(tmp_path: Path) -> None:
    """The file's bytes are sent, whatever its name."""
    odd = tmp_path / "no suffix"
    odd.write_bytes(b"\x00\xff")
    assert image_url(str(odd)) == "data:image/*;base64," + base64.b64encode(b"\x00\xff").decode()


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.avi"])
def test_a_video_is_sent_as_one(tmp_path: Path, name: str) -> None:
    """A file with a video's name is a data URL of a video."""
    file = tmp_path / name
    file.write_bytes(b"moving")
    assert image_url(str(file)).startswith("data:video/")


def test_an_image_id_is_sent_as_it_is() -> None:
    """An id that a server gave is a reference, with or without its scheme."""
    assert image_url("img_12ab") == image_url("image:img_12ab") == "image:img_12ab"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing picture or list of questions is one clear line."""
    with pytest.raises(UnreadableFile, match=r"cannot read the image .*gone\.png: No such file"):
        image_url(str(tmp_path / "gone.png"))
    with pytest.raises(UnreadableFile, match=r"gone\.txt: No such file"):
        read_questions(tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9?")
    with pytest.raises(UnreadableFile, match="not UTF-8"):
        read_questions(tmp_path / "latin.txt")


def test_questions_are_the_lines_that_hold_something(tmp_path: Path) -> None:
    """Empty lines and spaces around a question mean nothing."""
    file = tmp_path / "questions"
    file.write_text("one?\n\n  two?  \n# three?\n")
    assert read_questions(file) == ["one?", "two?", "# three?"]
