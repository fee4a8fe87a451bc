"""What `lookonce ask` asks of each image, its rows of results, and how answers are shown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookonce.answer_rows import AnswerRow, rows
from lookonce.bulk.errors import RunEnded
from lookonce.bulk.progress import HITS, IMAGES, PROMPT_TOKENS, REUSED_TOKENS, saved_text
from lookonce.bulk.run import Tally
from lookonce.bulk.work import Column, Done, Item, Kind, Row
from lookonce.client import AsyncClient
from lookonce.client.calls import Sampling
from lookonce.client.errors import Forbidden, NothingAnswers, TimedOut, Unauthorized
from lookonce.client.values import Answer, Answers, Question
from lookonce.errors import UnreadableFile

# Of what a float of a model's is told: the rest differs with what ran beside it.
DIGITS = 6
COLUMNS = (
    Column("image"),
    Column("id"),
    Column("image_id"),
    Column("question_id"),
    Column("question"),
    Column("answer"),
    Column("finish_reason"),
    Column("probabilities", Kind.SCORES),
    Column("prompt_tokens", Kind.INTEGER),
    Column("completion_tokens", Kind.INTEGER),
    Column("error"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants to know of every image that brings no questions of its own.

    Attributes:
        questions: Each is asked about every image.
        choices: Where given, each of them is scored over these.
        max_tokens: The longest answer; None leaves it to the server.
    """

    questions: tuple[str, ...]
    choices: tuple[str, ...] = ()
    max_tokens: int | None = None

    def of(self, item: Item) -> tuple[Question, ...]:
        """The questions about an item."""
        return item.questions or tuple(Question(text, choices=self.choices) for text in self.questions)


class Asking:
    """Questions about each item, asked of a server."""

    columns: Sequence[Column] = COLUMNS

    def __init__(self, asked: Asked, client: AsyncClient) -> None:
        self._asked = asked
        self._client = client

    @property
    def asked(self) -> Mapping[str, Any]:
        """What a journal has to agree with."""
        asked = self._asked
        return {"questions": asked.questions, "choices": asked.choices, "max_tokens": asked.max_tokens}

    async def ask(self, item: Item) -> Done:
        """Asks all of an item's questions as one request."""
        questions = self._asked.of(item)
        if not questions:
            return self.failed(item, "there is no question: the source has none, and no -q was given")
        with ending_the_run():
            answers = await self._client.ask(item.pictures, questions, Sampling(max_tokens=self._asked.max_tokens))
        told = [_row(item, answers, question, answer) for question, answer in zip(questions, answers, strict=True)]
        return Done(told, failed=answers.failed, counts=_counts(answers), detail=(questions, answers))

    def failed(self, item: Item, error: str) -> Done:
        """A row for every question that was to be asked, or one where there is none."""
        asked = self._asked.of(item) or (Question(""),)
        told = [_failed_row(item, question, error) for question in asked]
        return Done(told, failed=True)


@contextmanager
def ending_the_run() -> Iterator[None]:
    """Ends a run where the server is gone or does not take the token, which every other image would meet too."""
    try:
        yield
    except TimedOut:
        raise
    except (NothingAnswers, Unauthorized, Forbidden) as exc:
        raise RunEnded(str(exc)) from exc


def _row(item: Item, answers: Answers, question: Question, answer: Answer) -> Row:
    if answer.error:
        return _failed_row(item, question, answer.error.message) | {"image_id": ", ".join(answers.images)}
    shares = {choice.text: round(choice.probability, DIGITS) for choice in answer.choices}
    return {
        **_named(item, question),
        "image_id": ", ".join(answers.images),
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "probabilities": shares or None,
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
    }


def _failed_row(item: Item, question: Question, error: str) -> dict[str, Any]:
    return {**_named(item, question), "finish_reason": "error", "error": error}


def _named(item: Item, question: Question) -> dict[str, Any]:
    return {
        "image": item.name,
        "id": item.id or None,
        "question_id": question.id or None,
        "question": question.text or None,
    }


def _counts(answers: Answers) -> dict[str, int]:
    return {
        IMAGES: len(answers.image_cache),
        HITS: answers.image_cache.count("hit"),
        PROMPT_TOKENS: answers.usage.prompt_tokens,
        REUSED_TOKENS: answers.prefix_tokens_reused,
    }


def read_questions(path: Path) -> list[str]:
    """The lines of a file that hold anything. Raises `UnreadableFile`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror or str(exc) if isinstance(exc, OSError) else "it is not UTF-8"
        raise UnreadableFile(f"cannot read the questions in {path}: {why}") from exc
    return [line.strip() for line in lines if line.strip()]


class Shown:
    """Answers as tables, as they come.

    Args:
        out: For the answers.
        errors: For the images that failed.
        as_json: Print each raw reply on a line of its own instead.
        alone: There is only one image, which an error need not name.
    """

    def __init__(self, out: Console, errors: Console, *, as_json: bool, alone: bool) -> None:
        self._out = out
        self._errors = errors
        self._as_json = as_json
        self._alone = alone

    def done(self, item: Item, done: Done) -> None:
        """What came of one item."""
        if done.detail is None:
            self._failed(item, str(done.rows[0]["error"]))
            return
        questions, answers = done.detail
        if self._as_json:
            self._out.out(json.dumps(answers.raw, ensure_ascii=False), highlight=False)
            return
        title = ", ".join(Path(each).name if isinstance(each, str) else item.name for each in item.pictures)
        self._out.print(_heading(title, answers), soft_wrap=True)
        self._out.print(_table(rows([question.text for question in questions], answers)))

    def saved(self, tally: Tally) -> None:
        """What the answers together saved."""
        if not self._as_json and tally.counts:
            self._out.print(Text(saved_text(tally), "bold"), soft_wrap=True)

    def _failed(self, item: Item, error: str) -> None:
        named = error if self._alone else f"{item.name}: {error}"
        self._errors.print(Text().append("error: ", "bold red").append(named), soft_wrap=True)


def _heading(title: str, answers: Answers) -> Text:
    states = (f"{image} {state}" for image, state in zip(answers.images, answers.image_cache, strict=True))
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
