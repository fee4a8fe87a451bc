"""The plot of a run: two hosts' time as a part of one host's, by the link's rate. Needs matplotlib."""

from pathlib import Path
from typing import Any

from benchmarks.hosts.asking import Load
from benchmarks.hosts.measuring import ONE, TWO, Hosts
from benchmarks.hosts.report import expected_ratio, measured_loads, measured_ratios
from benchmarks.plots import figure, save

_STEPS = 60


def draw(found: Hosts, path: Path) -> Path:
    """Writes the plot and returns its path."""
    loads = measured_loads(found)
    several = max(load.pictures for load in loads)
    questions = _middle_questions(loads)
    panels = [
        (
            "one new picture, by its tokens",
            "tokens",
            [load for load in loads if load.pictures == 1 and load.questions == questions],
        ),
        (
            f"{several} new pictures at once, by their tokens",
            "tokens",
            [load for load in loads if load.pictures == several and load.questions == questions],
        ),
        (f"{several} new pictures at once, by questions", "questions", _by_questions(loads, several)),
    ]
    drawn, all_axes = figure(13, 4, len(panels))
    for axes, (title, name, shown) in zip(all_axes, panels, strict=True):
        _panel(axes, found, shown, name)
        axes.set_title(title, fontsize="medium")
    all_axes[0].set_ylabel("time to the last answer, two hosts / one host")
    return save(drawn, path)


def _middle_questions(loads: list[Load]) -> int:
    """The number of questions that is asked about pictures of every size."""
    counts = [load.questions for load in loads]
    return max(set(counts), key=counts.count)


def _by_questions(loads: list[Load], pictures: int) -> list[Load]:
    """Loads of the size that is asked about in every way."""
    several = [load for load in loads if load.pictures == pictures]
    sizes = [load.tokens for load in several]
    size = max(sizes, key=sizes.count)
    return sorted((load for load in several if load.tokens == size), key=lambda load: load.questions)


def _panel(axes: Any, found: Hosts, loads: list[Load], name: str) -> None:
    from matplotlib.ticker import FuncFormatter

    for place, load in enumerate(loads):
        colour = f"C{place}"
        points = measured_ratios(found, TWO, load)
        rates = [rate for rate, _ in points]
        label = f"{getattr(load, name)} {name}"
        axes.plot(rates, [ratio for _, ratio in points], marker="o", linestyle="none", color=colour, label=label)
        steps = [rates[0] * (rates[-1] / rates[0]) ** (step / _STEPS) for step in range(_STEPS + 1)]
        axes.plot(steps, [expected_ratio(found, load, rate) for rate in steps], color=colour, linewidth=1)
    axes.axhline(1, color="black", linestyle="--", linewidth=1, label=ONE)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda mbit, _: f"{mbit:g}"))
    axes.set_xlabel("Mbit/s (points measured, lines expected)")
    axes.legend(fontsize="small")
