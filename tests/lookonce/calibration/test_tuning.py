"""One policy's figures, and when it stays as it was; plots and tables of it."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from gateway.policies.policy import Policy
from lookonce.calibration import plots
from lookonce.calibration.plots import NoPlots, check_plots, plot
from lookonce.calibration.report import report
from lookonce.calibration.thresholds import Aim
from lookonce.calibration.tuning import figures, labelled, tune

POLICY = Policy("p", "q?", ("yes", "no"), ("yes",), threshold=0.9)
GOOD = labelled([-4.0, -3.0, -3.5, -1.0, -1.5, -0.5], [False, False, False, True, True, True])


def test_calibration_and_threshold_part_the_examples() -> None:
    """Scores that are all too low are raised and parted; the order is what it was."""
    tuned = tune(POLICY, GOOD, Aim(), with_bias=True)
    found = figures(tuned)
    assert not tuned.problem
    assert tuned.policy.calibration.bias > 0
    assert (found.count, found.flagged, found.auc, found.f1) == (6, 3, 1.0, 1.0)
    assert found.ece < found.ece_raw


@pytest.mark.parametrize(
    ("examples", "aim", "problem"),
    [
        (labelled([1.0, 2.0], [True, True]), Aim(), "needs examples of both kinds; it has 2 flagged and 0 others"),
        (labelled([9.0, 8.0, -8.0, -9.0] * 9, [False, False, True, True] * 9), Aim(), "AUC 0.00"),
        (labelled([1.0, 2.0, 3.0] * 9, [True, True, False] * 9), Aim(precision=1.0), "do not rise"),
        (labelled([1.0, 2.0, 3.0, -2.0] * 9, [True, True, False, False] * 9), Aim(precision=1.0), "no threshold"),
    ],
)
def test_a_policy_that_cannot_be_fitted_stays(examples: object, aim: Aim, problem: str) -> None:
    """Examples of one kind, scores against the labels and an aim out of reach leave the policy, and say why."""
    tuned = tune(POLICY, examples, aim, with_bias=True)  # type: ignore[arg-type]
    assert tuned.policy is POLICY
    assert problem in tuned.problem


def test_the_table_tells_figures_and_problems() -> None:
    """Every policy has a row, and one that stays has its reason below."""
    console = Console(file=io.StringIO(), width=100)
    lone = labelled([1.0], [True])
    report([tune(POLICY, GOOD, Aim(), with_bias=True), tune(POLICY, lone, Aim(), with_bias=True)], console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "3/6" in said
    assert "1/1" in said
    assert "p stays as it was: it needs examples of both kinds" in said


def test_plots_are_drawn_or_said_to_be_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is written; a wrong ending, no folder, nothing to draw or no matplotlib is an error that says so."""
    tuned = tune(POLICY, GOOD, Aim(), with_bias=True)
    plot([tuned], tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()
    with pytest.raises(NoPlots, match="nothing to draw"):
        plot([tune(POLICY, labelled([1.0], [True]), Aim(), with_bias=True)], tmp_path / "q.svg")
    with pytest.raises(NoPlots, match=r"written as \.png"):
        check_plots(tmp_path / "p.txt")
    with pytest.raises(NoPlots, match="there is no folder"):
        check_plots(tmp_path / "none" / "p.png")
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoPlots, match=r"pip install 'lookonce\[bench\]'"):
        check_plots(tmp_path / "p.png")
