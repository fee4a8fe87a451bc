"""The curves of a calibration: what scores promise against what is so, and what each threshold would give."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gateway.policies.policy import UNCALIBRATED
from lookonce.calibration.fitting import calibrated
from lookonce.calibration.measures import Flags, Floats, bins, split
from lookonce.calibration.tuning import Tuned, lacks
from lookonce.errors import LookonceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (4.2, 3.6)
DPI = 120


class NoPlots(LookonceError):
    """A plot cannot be drawn or written."""


def check_plots(path: Path) -> None:
    """Whether plots can be drawn there, asked before anything is done for them. Raises `NoPlots`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise NoPlots("--plot needs matplotlib: pip install 'lookonce[bench]'")
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise NoPlots(f"{path}: plots are written as .png, .svg or .pdf, by the file's ending")
    if not path.absolute().parent.is_dir():
        raise NoPlots(f"cannot write {path}: there is no folder {path.absolute().parent}")


def plot(tuned: Sequence[Tuned], path: Path) -> None:
    """Two diagrams for each policy with examples of both kinds. Raises `NoPlots`."""
    from matplotlib.figure import Figure

    shown = [each for each in tuned if lacks(each.labelled) is None]
    if not shown:
        raise NoPlots("there is nothing to draw: no policy has examples of both kinds")
    figure = Figure(figsize=(2 * INCHES[0], len(shown) * INCHES[1]), dpi=DPI, layout="constrained")
    for row, each in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        _reliability(row[0], each)
        _precision_recall(row[1], each)
    try:
        figure.savefig(path)
    except OSError as exc:
        raise NoPlots(f"cannot write {path}: {exc.strerror}") from exc


def _reliability(axes: "Axes", tuned: Tuned) -> None:
    raw = calibrated(tuned.labelled.log_odds, UNCALIBRATED)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, scores in (("raw", raw), ("calibrated", tuned.scores)):
        found = bins(scores, tuned.labelled.flagged)
        axes.plot([each.score for each in found], [each.share for each in found], marker="o", label=name)
    axes.set(title=tuned.policy.name, xlabel="score", ylabel="share flagged by people", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _precision_recall(axes: "Axes", tuned: Tuned) -> None:
    recall, precision = curve(tuned.scores, tuned.labelled.flagged)
    chosen = split(tuned.scores, tuned.labelled.flagged, tuned.policy.threshold)
    axes.step(recall, precision, where="post")
    axes.plot([chosen.recall], [chosen.precision], "o", label=f"threshold {tuned.policy.threshold:.3g}")
    axes.set(title=tuned.policy.name, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend()


def curve(scores: Floats, flagged: Flags) -> tuple[Floats, Floats]:
    """Recall and precision of every threshold that parts the examples differently, the highest first."""
    found = [split(scores, flagged, float(threshold)) for threshold in np.unique(scores)[::-1]]
    return np.array([each.recall for each in found]), np.array([each.precision for each in found])
