"""`make demo`: serves the shipped checkpoint, asks it about the shipped pictures, and prints what it said.

The first question of each picture pays for its encoding and its prefix; the others find both done.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lookonce.answer_rows import AnswerRow, rows, saved
from lookonce.client import Answers, Client, Sampling
from lookonce.launcher import with_deployment
from lookonce.models import model_dir, named
from lookonce.serve_settings import LOOPBACK, from_environment, serve_settings
from lookonce.terminal import Terminal

HERE = Path(__file__).parent
IMAGES = HERE / "images"
MARKS = {True: "[green]✓[/]", False: "[red]✗[/]"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A shipped picture, the questions about it, and the right answers."""

    path: Path
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def pictures() -> list[Picture]:
    """The shipped pictures, as `questions.json` beside them lists them."""
    listed = json.loads((IMAGES / "questions.json").read_text())
    return [
        Picture(IMAGES / name, tuple(q["text"] for q in asked), tuple(q["answer"] for q in asked))
        for name, asked in listed.items()
    ]


def ask(client: Client, picture: Picture) -> Answers:
    """The server's answers to all the questions about a picture, asked as one request."""
    return client.ask(picture.path, picture.questions, Sampling(temperature=0))


def is_right(row: AnswerRow, expected: str) -> bool:
    """Whether an answer is the expected one."""
    return not row.failed and row.answer.strip().lower() == expected


def table(asked: list[tuple[Picture, list[AnswerRow]]]) -> Table:
    """All questions with their answers, a section for each picture."""
    made = Table("picture", "question", "answer", "", "time", "image", "reused tokens", header_style="bold")
    for picture, answered in asked:
        for place, (row, expected) in enumerate(zip(answered, picture.answers, strict=True)):
            name = picture.path.name if place == 0 else ""
            mark = MARKS[is_right(row, expected)]
            image = f"[{'green' if row.image == 'hit' else 'yellow'}]{row.image}[/]"
            made.add_row(name, row.question, row.answer, mark, row.time, image, row.reused)
        made.add_section()
    return made


def show(url: str, console: Console) -> bool:
    """Asks, prints, and says whether every answer was right."""
    shown = pictures()
    with Client(url) as client:
        replies = [ask(client, picture) for picture in shown]
    asked = [(picture, rows(picture.questions, reply)) for picture, reply in zip(shown, replies, strict=True)]
    right = sum(is_right(row, answer) for p, answered in asked for row, answer in zip(answered, p.answers, strict=True))
    total = sum(len(picture.questions) for picture in shown)
    console.print(table(asked))
    console.print(f"{right} of {total} right. {saved(replies)}")
    console.print("Serve it yourself: [bold].venv/bin/lookonce serve --model demo[/], then open http://127.0.0.1:8000")
    return right == total


def main() -> int:
    """Serves, shows, and ends the server; 0 if every answer was right."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    settings = serve_settings(named(from_environment(model=model_dir("demo"), host=LOOPBACK, port=0)))

    async def work(url: str) -> bool:
        return await asyncio.to_thread(show, url, console)

    terminal = Terminal(console, Console(stderr=True, highlight=False), settings.log_level)
    return 0 if asyncio.run(with_deployment(settings, terminal, work)) else 1


if __name__ == "__main__":
    sys.exit(main())
