"""A whole bulk run into a file: the journal, the bar, the results, and what is said at the end."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lookonce.amounts import counted
from lookonce.bulk.errors import UnusableOutput
from lookonce.bulk.journal import Journal, journal_path
from lookonce.bulk.progress import progress, summary
from lookonce.bulk.results import check_output, write_results
from lookonce.bulk.run import Run, Tally
from lookonce.bulk.sources import Sources
from lookonce.bulk.work import Work

PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go, and how.

    Attributes:
        path: The file; its ending says its form.
        resume: Go on from the journal beside it, where there is one.
        parallel: Images in work at a time.
    """

    path: Path
    resume: bool = True
    parallel: int = PARALLEL


def open_journal(output: Output, work: Work) -> Journal:
    """The journal of an output, after everything was checked that can keep results from being written.

    Raises:
        UnusableOutput: results cannot be written there, or would be written over a file that is not of such a run.
        MissingExtra, OtherRun, DamagedJournal: as told there.
    """
    check_output(output.path)
    path = journal_path(output.path)
    if output.resume and output.path.exists() and not path.exists():
        raise UnusableOutput(
            f"{output.path} is there, without a run's journal: choose another -o, or give --no-resume to replace it"
        )
    return Journal(path, work.asked, fresh=not output.resume)


async def run_to_file(sources: Sources, work: Work, output: Output, console: Console) -> bool:
    """Asks about every item that the journal does not have, and writes the results of all; whether none failed.

    Cancelled or killed it leaves the journal, from which the next run goes on, and no results or those of before.

    Raises:
        BulkError: what ends a run.
    """
    with closing(open_journal(output, work)) as journal:
        run = Run(
            work,
            lambda item, done: journal.add(item.key, done),
            parallel=output.parallel,
            is_done=journal.has,
        )
        told = await _watched(run, sources, console, "the same command goes on from there")
        write_results(output.path, work.columns, journal.rows(run.tally.keys))
    console.print(told, soft_wrap=True)
    console.print(Text(f"Results: {output.path}"), soft_wrap=True)
    return not run.tally.failed


async def run_only(sources: Sources, work: Work, parallel: int, console: Console) -> bool:
    """Asks about every item, and says what it came to; whether none failed. Nothing is kept.

    Raises:
        BulkError: what ends a run.
    """
    run = Run(work, lambda *_: None, parallel=parallel)
    console.print(await _watched(run, sources, console, "what the server has of them it keeps"), soft_wrap=True)
    return not run.tally.failed


async def _watched(run: Run, sources: Sources, console: Console, otherwise: str) -> Text:
    """Runs with a bar; the summary. Where it ends early it says how far it came."""
    began = time.monotonic()
    try:
        with progress(console, len(sources)) as step:
            run.step = step
            await run.all(sources)
    except BaseException:
        console.print(_stopped(run.tally, otherwise), soft_wrap=True)
        raise
    return summary(run.tally, time.monotonic() - began)


def _stopped(tally: Tally, otherwise: str) -> Text:
    done = tally.asked + tally.skipped
    return Text(f"Stopped: {counted(done, 'image')} done; {otherwise}.", "bold yellow")
