"""`lookonce plan`: the cheapest fleet for a traffic and a promise, and what becomes of it when workers die."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lookonce.amounts import seconds_text
from lookonce.errors import NoPlan
from lookonce.kinds import read_size
from planning import COSTS
from planning.costs import UnusableCosts, read_costs
from planning.fleet import Report
from planning.search import NoFleet, Wish, cheapest, with_deaths
from planning.traffic import Traffic

DYING_PART = 0.1


def add_command(app: typer.Typer) -> None:
    """Gives the command line `plan`."""
    app.command("plan")(plan)


def plan(
    rate: Annotated[float, typer.Option(min=0.001, metavar="R", help="Requests a second, each about one image.")],
    questions_per_image: Annotated[int, typer.Option(min=1, metavar="N", help="Questions of a request.")],
    slo: Annotated[float, typer.Option(min=0.001, metavar="S", help="Seconds to the first token, for 95 of 100.")],
    image_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of an image.")] = 576,
    question_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of a question.")] = 37,
    answer_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of an answer.")] = 16,
    images: Annotated[int, typer.Option(min=0, metavar="N", help="Images asked about; 0: each request's is new.")] = 0,
    zipf: Annotated[float, typer.Option(min=0, metavar="A", help="How unequal they are: 0 all alike, 1 usual.")] = 1.0,
    vision_price: Annotated[float, typer.Option(min=0, metavar="P", help="Of a vision worker for an hour.")] = 1.0,
    language_price: Annotated[float, typer.Option(min=0, metavar="P", help="Of a language worker for an hour.")] = 1.0,
    kv_bytes: Annotated[str, typer.Option(metavar="SIZE", help="For kept prefixes in each language worker.")] = "1GiB",
    store_bytes: Annotated[str, typer.Option(metavar="SIZE", help="For entries in Redis.")] = "64GB",
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="As benchmarks.costs writes it. Left out: those of a 2-core CPU."),
    ] = None,
) -> None:
    """Plan the cheapest fleet for a traffic, by a simulation with measured costs."""
    console = Console(highlight=False)
    traffic = Traffic(rate, questions_per_image, image_tokens, question_tokens, answer_tokens, images, zipf)
    wish = Wish(slo, vision_price, language_price, read_size(kv_bytes), read_size(store_bytes))
    try:
        measured = read_costs(costs or COSTS)
        with console.status("simulating fleets"):
            found = cheapest(measured, traffic, wish)
            dying = with_deaths(measured, traffic, found.fleet, DYING_PART)
            spare = cheapest(measured, traffic, wish, DYING_PART)
    except (UnusableCosts, NoFleet) as exc:
        raise NoPlan(str(exc)) from exc
    console.print(f"costs: {measured.name}")
    console.print(_table(wish, found, dying, spare))


def _table(wish: Wish, found: Report, dying: Report, spare: Report) -> Table:
    table = Table("", "cheapest", f"… {DYING_PART:.0%} die", f"cheapest that bears {DYING_PART:.0%}")
    for column in table.columns[1:]:
        column.justify = "right"
    runs = (found, dying, spare)
    table.add_row("vision workers", *(str(run.fleet.vision) for run in runs))
    table.add_row("language workers", *(str(run.fleet.language) for run in runs))
    table.add_row("price an hour", *(f"{wish.price(run.fleet):g}" for run in runs))
    table.add_section()
    table.add_row("first token, p50", *(seconds_text(run.first_token_s(50)) for run in runs))
    table.add_row(
        f"first token, p95 (wanted: {seconds_text(wish.first_token_s)})",
        *(seconds_text(run.first_token_s(95)) for run in runs),
    )
    table.add_row("last answer, p95", *(seconds_text(run.answered_s(95)) for run in runs))
    table.add_section()
    table.add_row("images that needed no encoding", *(f"{run.entry_hits:.0%}" for run in runs))
    table.add_row("prefix was resident (affinity)", *(f"{run.prefix_hits:.0%}" for run in runs))
    table.add_row("vision workers are busy", *(f"{run.vision_use:.0%}" for run in runs))
    table.add_row("language workers are busy", *(f"{run.language_use:.0%}" for run in runs))
    return table
