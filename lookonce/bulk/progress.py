"""What a person sees of a bulk run: a bar with the rate, the hits and the failures, and a summary at the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lookonce.amounts import counted, percent_text
from lookonce.answer_rows import Saved
from lookonce.bulk.run import Tally

# Counted by the commands: images, those whose embedding was there, and the prompt's tokens.
IMAGES, HITS, PROMPT_TOKENS, REUSED_TOKENS = "images", "hits", "prompt_tokens", "reused_tokens"


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[Tally], None]]:
    """A bar of `total` items on the console, while it is a terminal; yields what moves it on."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total, rate="", told="")

        def step(tally: Tally) -> None:
            rate = tally.asked / max(time.monotonic() - began, 1e-9)
            told = bar_text(tally)
            bar.update(task, completed=tally.asked + tally.skipped, rate=f"{rate:.1f} images/s", told=told)

        yield step


def bar_text(tally: Tally) -> str:
    """`81 % hits, 2 failed`: what stands beside the bar."""
    counts = tally.counts
    parts = [f"{percent_text(counts[HITS], counts[IMAGES])} hits"] if counts[IMAGES] else []
    return ", ".join([*parts, *([f"{tally.failed} failed"] if tally.failed else [])])


def summary(tally: Tally, seconds: float) -> Text:
    """What a run came to, in at most three lines."""
    lines = [f"{counted(tally.asked, 'image')} in {seconds:.1f} s ({tally.asked / max(seconds, 1e-9):.1f} images/s)"]
    if tally.skipped:
        lines[0] += f", {tally.skipped:,} done before"
    if saved := saved_text(tally):
        lines.append(saved)
    text = Text("\n".join(lines), "bold")
    if tally.failed:
        text.append(f"\n{tally.failed:,} failed; the first: {tally.first_error}", "bold red")
    return text


def saved_text(tally: Tally) -> str:
    """What was not done again; "" where nothing tells of it."""
    counts = tally.counts
    saved = Saved(counts[IMAGES], counts[HITS], counts[PROMPT_TOKENS], counts[REUSED_TOKENS])
    if saved.prompt_tokens:
        return str(saved)
    return f"Saved: {saved.of_images()}." if saved.images else ""
