"""`lookonce ask`: questions about pictures; answers in a table, with what was saved, or in a file."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lookonce import bulk_options
from lookonce.asking import Asked, Asking, Shown, read_questions
from lookonce.bulk.run import Run
from lookonce.bulk.sources import Album, Sources, brings_questions, sources
from lookonce.bulk.to_file import run_to_file
from lookonce.client import AsyncClient


def add_command(app: typer.Typer) -> None:
    """Gives the command line `ask`."""
    app.command("ask")(ask)


def ask(
    images: bulk_options.Images,
    question: Annotated[list[str] | None, typer.Option("--question", "-q", help="Repeat it for more.")] = None,
    questions: Annotated[Path | None, typer.Option(metavar="FILE", help="A file of questions, one a line.")] = None,
    choices: Annotated[str | None, typer.Option(metavar="A,B,…", help="Score each question over these words.")] = None,
    server: bulk_options.Server = None,
    model: bulk_options.Model = None,
    together: Annotated[bool, typer.Option("--together", help="Ask about all images at once, as an album.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's replies, one a line.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The longest answer.")] = None,
    output: bulk_options.OutputFile = None,
    resume: bulk_options.Resume = True,
    parallel: bulk_options.Parallel = None,
    token: bulk_options.Token = None,
) -> None:
    """Ask questions about pictures; answers in a table, with what was saved, or in a file with -o."""
    if as_json and output:
        raise typer.BadParameter("give --json or -o, not both")
    asked = Asked(_questions(images, question, questions), _choices(choices), max_tokens)
    found = Sources([Album(images)]) if together else sources(images)
    to = bulk_options.output(output, resume, parallel)

    async def work(client: AsyncClient) -> bool:
        if to is not None:
            return await run_to_file(found, Asking(asked, client), to, Console(stderr=True, highlight=False))
        return await _show(found, Asking(asked, client), parallel or 1, as_json=as_json)

    raise typer.Exit(0 if bulk_options.with_client(server, model, token, work) else 1)


async def _show(found: Sources, asking: Asking, parallel: int, *, as_json: bool) -> bool:
    """Shows every answer as it comes; whether every question was answered."""
    out, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    shown = Shown(out, errors, as_json=as_json, alone=len(found) == 1)
    tally = await Run(asking, shown.done, parallel=parallel).all(found)
    shown.saved(tally)
    return not tally.failed


def _questions(images: list[str], given: list[str] | None, file: Path | None) -> tuple[str, ...]:
    questions = (*(given or ()), *(read_questions(file) if file else ()))
    if not questions and not all(map(brings_questions, images)):
        raise typer.BadParameter("ask something: -q QUESTION, or --questions FILE")
    return questions


def _choices(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    choices = tuple(choice.strip() for choice in text.split(","))
    if not all(choices) or len(set(choices)) != len(choices):
        raise typer.BadParameter("write different words with commas between them: yes,no", param_hint="--choices")
    return choices
