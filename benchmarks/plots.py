"""Pictures of a run: bars beside the computed limit, and W8's growth curves. Needs matplotlib."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results import DIRECTORY, Report, WorkloadResult

COLOURS = {
    "transformers": "#b0b0b0",
    "transformers-batch": "#8a8a8a",
    "vllm": "#e08a3c",
    "lookonce-inprocess": "#9ecae1",
    "lookonce-grpc": "#4c93c7",
    "lookonce-http": "#1f5f99",
}
# Of the same system with other settings.
OTHER_COLOURS = ("#b5651d", "#f2b880", "#6b4226")
GROWTH = "W8-"
AXES = {"questions": "questions on one image", "tokens": "tokens of one image", "images": "images in flight"}
LIMIT = "computed limit"
_WIDTH = 0.8


def draw(report: Report, directory: Path = DIRECTORY) -> list[Path]:
    """Writes the plots that the report has data for; their paths."""
    bars = [result for result in report.workloads if not result.name.startswith(GROWTH)]
    paths = []
    if any(one.seconds for result in bars for one in result.systems.values()):
        paths.append(save(_bars(bars, report), directory / f"{report.title}.png"))
    grown = [result for result in report.workloads if result.name.startswith(GROWTH)]
    for axis in AXES:
        points = [result for result in grown if result.name.startswith(f"{GROWTH}{axis}-")]
        if points:
            paths.append(save(_growth(axis, points, report), directory / f"{report.title}-growth-{axis}.png"))
    return paths


def figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """A new figure and its axes. Raises `ImportError` where matplotlib is not installed."""
    # Only a machine that draws needs it.
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(ncols=columns, figsize=(width, height), layout="constrained")


def save(drawn: Any, path: Path) -> Path:
    """Writes the figure and returns its path."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
    return path


def colour(name: str) -> str:
    """A system's colour, the same in every plot."""
    return COLOURS.get(name) or OTHER_COLOURS[sum(name.encode()) % len(OTHER_COLOURS)]


def _measured(results: Iterable[WorkloadResult]) -> list[str]:
    """Systems with a time, in the order of the colours."""
    found = dict.fromkeys(name for each in results for name, one in each.systems.items() if one.seconds)
    known = list(COLOURS)
    return sorted(found, key=lambda name: known.index(name.partition(":")[0]) if name.partition(":")[0] in known else 0)


def _bars(results: list[WorkloadResult], report: Report) -> Any:
    """Median seconds, with the spread, on a logarithmic axis; the limit as a line across each group."""
    names = _measured(results)
    drawn, axes = figure(max(6.0, 1.6 + 1.7 * len(results)), 4.4)
    step = _WIDTH / len(names)
    for place, name in enumerate(names):
        label: str | None = name
        for group, result in enumerate(results):
            one = result.systems.get(name)
            if one is None or not one.seconds:
                continue
            spread = [[one.median_s - min(one.seconds)], [max(one.seconds) - one.median_s]]
            x = group - _WIDTH / 2 + (place + 0.5) * step
            axes.bar(x, one.median_s, step * 0.92, yerr=spread, color=colour(name), label=label, capsize=2)
            label = None
    _draw_limits(axes, results)
    logarithmic(axes)
    axes.set_ylabel("seconds, median of the repeats")
    axes.set_xticks(range(len(results)), [result.name for result in results])
    axes.set_title(f"{report.recipe}: less is better")
    drawn.legend(fontsize="small", loc="outside right upper")
    return drawn


def _draw_limits(axes: Any, results: list[WorkloadResult]) -> None:
    label: str | None = LIMIT
    for group, result in enumerate(results):
        if result.limit_total_s is not None:
            ends = (group - _WIDTH / 2, group + _WIDTH / 2)
            axes.hlines(result.limit_total_s, *ends, colors="black", linestyles="--", label=label)
            label = None


def logarithmic(axes: Any) -> None:
    """A logarithmic axis of seconds, with its numbers written out."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter(_plainly)
    axes.yaxis.set_minor_formatter(_plainly)


def _plainly(value: float, _: int) -> str:
    """A tick's label: 0.1, and not a power of ten."""
    return f"{value:g}"


def _growth(axis: str, results: list[WorkloadResult], report: Report) -> Any:
    """Seconds a question against the size."""
    drawn, axes = figure(6.6, 4)
    sizes = [int(each.name.rpartition("-")[2]) for each in results]
    for name in _measured(results):
        points = [
            (size, each.systems[name].median_s / each.questions)
            for size, each in zip(sizes, results, strict=True)
            if name in each.systems and each.systems[name].seconds
        ]
        axes.plot(*zip(*points, strict=True), marker="o", color=colour(name), label=name)
    limits = [
        (size, each.limit_total_s / each.questions)
        for size, each in zip(sizes, results, strict=True)
        if each.limit_total_s is not None
    ]
    if limits:
        axes.plot(*zip(*limits, strict=True), color="black", linestyle="--", label=LIMIT)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(_plainly)
    logarithmic(axes)
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel("seconds a question")
    axes.set_title(f"{report.recipe}: less is better")
    drawn.legend(fontsize="small", loc="outside right upper")
    return drawn
