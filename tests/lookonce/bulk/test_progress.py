"""What a person is told of a run."""

import io
from collections import Counter

from rich.console import Console

from lookonce.bulk.progress import HITS, IMAGES, PROMPT_TOKENS, REUSED_TOKENS, bar_text, progress, summary
from lookonce.bulk.run import Tally

TALLY = Tally(
    asked=8,
    skipped=2,
    failed=1,
    first_error="a.png: it is bad",
    counts=Counter({IMAGES: 4, HITS: 3, PROMPT_TOKENS: 200, REUSED_TOKENS: 50}),
)


def test_the_bar_tells_hits_and_failures() -> None:
    """Only what there is to tell stands beside the bar."""
    assert bar_text(TALLY) == "75 % hits, 1 failed"
    assert bar_text(Tally()) == ""


def test_the_bar_moves_on_a_terminal_alone() -> None:
    """On a terminal it counts skipped and asked items and tells the rate; into a file nothing is drawn."""
    drawn = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
        with progress(console, 20) as step:
            step(TALLY)
        assert isinstance(console.file, io.StringIO)
        drawn[terminal] = console.file.getvalue()
    assert "10/20" in drawn[True]
    assert "images/s" in drawn[True]
    assert "75 % hits, 1 failed" in drawn[True]
    assert drawn[False] == ""


def test_the_summary_tells_speed_savings_and_the_first_failure() -> None:
    """Three lines at most; what was not counted is not told."""
    assert summary(TALLY, 2.0).plain == (
        "8 images in 2.0 s (4.0 images/s), 2 done before\n"
        "Saved: 50 of 200 prompt tokens (25 %) were not computed again; 3 of 4 images needed no encoding.\n"
        "1 failed; the first: a.png: it is bad"
    )
    warmed = Tally(asked=4, counts=Counter({IMAGES: 4, HITS: 1}))
    assert summary(warmed, 2.0).plain.splitlines()[1] == "Saved: 1 of 4 images needed no encoding."
    assert summary(Tally(), 0.0).plain == "0 images in 0.0 s (0.0 images/s)"
