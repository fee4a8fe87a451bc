"""Pictures of a run: bars beside the computed limit, and W8's growth curves. Needs matplotlib."""

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
GROWTH = "W8-"
_WIDTH = 0.8


def draw(report: Report, directory: Path = DIRECTORY) -> list[Path]:
    """Writes the plots that the report has data for; their paths."""
    bars = [result for result in report.workloads if not result.name.startswith(GROWTH)]
    paths = []
    if bars:
        paths.append(save(_bars(bars, report), directory / f"{report.title}.png"))
    axes = sorted({result.name.split("-")[1] for result in report.workloads if result.name.startswith(GROWTH)})
    for axis in axes:
        points = [result for result in report.workloads if result.name.startswith(f"{GROWTH}{axis}-")]
        paths.append(save(_growth(axis, points), directory / f"{report.title}-growth-{axis}.png"))
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


def _bars(results: list[WorkloadResult], report: Report) -> Any:
    """Median seconds, with the spread, on a logarithmic axis; the limit as a line across each group."""
    names = [name for name in COLOURS if any(name in each.systems and each.systems[name].seconds for each in results)]
    drawn, axes = figure(1.6 + 1.7 * len(results), 4.4)
    step = _WIDTH / max(len(names), 1)
    for place, name in enumerate(names):
        for group, result in enumerate(results):
            one = result.systems.get(name)
            if one is None or not one.seconds:
                continue
            spread = [[one.median_s - min(one.seconds)], [max(one.seconds) - one.median_s]]
            label = name if group == _first_with(name, results) else None
            x = group - _WIDTH / 2 + (place + 0.5) * step
            axes.bar(x, one.median_s, step * 0.92, yerr=spread, color=COLOURS[name], label=label, capsize=2)
    for group, result in enumerate(results):
        if result.limit_total_s is not None:
            label = "computed limit" if group == 0 else None
            ends = (group - _WIDTH / 2, group + _WIDTH / 2)
            axes.hlines(result.limit_total_s, *ends, colors="black", linestyles="--", label=label)
    axes.set_yscale("log")
    axes.set_ylabel("seconds, median of the repeats")
    axes.set_xticks(range(len(results)), [result.name for result in results])
    axes.set_title(f"{report.recipe}: less is better")
    axes.legend(fontsize="small", ncols=2)
    return drawn


def _first_with(name: str, results: list[WorkloadResult]) -> int:
    return next(group for group, each in enumerate(results) if name in each.systems and each.systems[name].seconds)


def _growth(axis: str, results: list[WorkloadResult]) -> Any:
    """Seconds for each question (or for each image token) against the size."""
    drawn, axes = figure(5.4, 4)
    for name, colour in COLOURS.items():
        points = [
            (int(each.name.rpartition("-")[2]), each.systems[name].median_s / each.questions)
            for each in results
            if name in each.systems and each.systems[name].seconds
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(
        {"questions": "questions on one image", "tokens": "image tokens", "images": "images in flight"}[axis]
    )
    axes.set_ylabel("seconds a question")
    axes.legend(fontsize="small")
    return drawn
