"""`lookonce ask`: questions about pictures, answers in a table, and what was saved."""

import asyncio
import base64
import json
import mimetypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookonce.answer_rows import AnswerRow, rows, saved
from lookonce.client import Client
from lookonce.errors import UnreadableFile

Json = dict[str, Any]

ID_PREFIX = "img_"
ID_SCHEME = "image:"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants to know.

    Attributes:
        images: Files, or ids of images that the server knows (`img_…`).
        questions: Each is asked about every image.
        choices: Where given, each question is scored over them.
        together: The images are one album, not asked about one by one.
        max_tokens: The longest answer; None leaves it to the server.
    """

    images: tuple[str, ...]
    questions: tuple[str, ...]
    choices: tuple[str, ...] = ()
    together: bool = False
    max_tokens: int | None = None

    def groups(self) -> list[tuple[str, ...]]:
        """The images of each request."""
        return [self.images] if self.together or not self.images else [(image,) for image in self.images]


def read_questions(path: Path) -> list[str]:
    """The lines of a file that hold anything. Raises `UnreadableFile`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise UnreadableFile(f"cannot read the questions in {path}: {_why(exc)}") from exc
    return [line.strip() for line in lines if line.strip()]


def image_url(image: str) -> str:
    """What the server takes for an image: a data URL of the file, or the id. Raises `UnreadableFile`."""
    if image.removeprefix(ID_SCHEME).startswith(ID_PREFIX) and not Path(image).exists():
        return ID_SCHEME + image.removeprefix(ID_SCHEME)
    try:
        data = Path(image).read_bytes()
    except OSError as exc:
        raise UnreadableFile(f"cannot read the image {image}: {_why(exc)}") from exc
    guessed, _ = mimetypes.guess_type(image)
    # The server looks at the bytes; the type only has to be an image's or a video's.
    kind = guessed if guessed and guessed.startswith(("image/", "video/")) else "image/*"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _why(exc: OSError | UnicodeDecodeError) -> str:
    return exc.strerror or str(exc) if isinstance(exc, OSError) else "it is not UTF-8"


def requests(asked: Asked) -> Iterator[tuple[str, Json]]:
    """A title and the body of each request. Raises `UnreadableFile`."""
    choices = {"choices": list(asked.choices)} if asked.choices else {}
    questions = [{"text": text, **choices} for text in asked.questions]
    limit = {} if asked.max_tokens is None else {"max_tokens": asked.max_tokens}
    for group in asked.groups():
        title = ", ".join(Path(image).name for image in group)
        yield title, {"images": [image_url(image) for image in group], "questions": questions, **limit}


def ask(asked: Asked, client: Client, show: "Shown") -> bool:
    """Asks, shows every reply as it comes and what was saved; whether every question was answered."""
    replies = []
    for title, request in requests(asked):
        reply = client.answers(request)
        show.reply(title, asked.questions, reply)
        replies.append(reply)
    show.saved(replies)
    return not any(answer.get("error") for reply in replies for answer in reply["answers"])


async def ask_in_thread(asked: Asked, client: Client, show: "Shown") -> bool:
    """The same, beside a deployment that is watched."""
    return await asyncio.to_thread(ask, asked, client, show)


class Shown:
    """Replies as tables. `as_json` prints each raw reply on a line of its own instead."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json

    def reply(self, title: str, questions: Sequence[str], reply: Json) -> None:
        """One reply."""
        if self._as_json:
            self._console.out(json.dumps(reply, ensure_ascii=False), highlight=False)
            return
        self._console.print(_heading(title, reply), soft_wrap=True)
        self._console.print(_table(rows(questions, reply)))

    def saved(self, replies: Sequence[Json]) -> None:
        """What the replies together saved."""
        if not self._as_json:
            self._console.print(Text(str(saved(replies)), "bold"), soft_wrap=True)


def _heading(title: str, reply: Json) -> Text:
    images = zip(reply["images"], reply["lookonce"]["image_cache"], strict=True)
    states = (f"{image} {state}" for image, state in images)
    return Text(title or "no image", "bold") + Text(f"  {', '.join(states)}", "not bold dim")


def _table(answers: Sequence[AnswerRow]) -> Table:
    table = Table()
    for heading, justify in (("question", "left"), ("answer", "left"), ("time", "right"), ("image", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("reused tokens", justify="right")
    for row in answers:
        answer = Text(row.answer, "red" if row.failed else "")
        table.add_row(Text(row.question), answer, row.time, Text(row.image, _colour(row.image)), row.reused)
    return table


def _colour(states: str) -> str:
    return {"hit": "green", "miss": "yellow"}.get(states, "")
