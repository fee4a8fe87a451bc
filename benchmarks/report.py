"""A run as a table for the terminal and as Markdown for the documentation."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks import bars
from benchmarks.results import Report, SystemResult, WorkloadResult

COLUMNS = (
    "workload",
    "system",
    "median s",
    "min–max",
    "× fastest peer",
    "of the limit",
    "answers equal",
    "MiB",
)
_TIMES = ("", "system", "median s", "min–max", "× peer", "limit")
_CHECKS = ("", "system", "answers equal", "peak MiB")
REMARK = (
    "Answers are compared with the whole model's, and in repeats that it sat out with those of the first other system "
    "(behind a +); p ± is the largest difference of a scored choice's probability. MiB is the peak resident memory of "
    "all its processes."
)
_MIB = 1 << 20


def rows(result: WorkloadResult) -> list[tuple[str, ...]]:
    """The table's cells for one workload, a row for each system; the limit last."""
    peer = fastest_peer(result)
    found = [(result.name, name, *_cells(one, peer, result.limit_total_s)) for name, one in result.systems.items()]
    if result.limit_total_s is not None:
        found.append((result.name, "computed limit", f"{result.limit_total_s:.3f}", "", "", "100 %", "", ""))
    return found


def fastest_peer(result: WorkloadResult) -> float | None:
    """Median seconds of the fastest system that is not ours; None where none was measured."""
    peers = (one for name, one in result.systems.items() if not name.startswith(bars.OURS))
    return min((one.median_s for one in peers if one.seconds), default=None)


def _cells(one: SystemResult, peer: float | None, limit_s: float | None) -> tuple[str, ...]:
    if not one.seconds:
        return ("–", one.skipped or "not measured", "", "", "", "")
    return (
        f"{one.median_s:.3f}",
        f"{min(one.seconds):.3f}–{max(one.seconds):.3f}",
        f"{peer / one.median_s:.2f}" if peer else "",
        f"{limit_s / one.median_s:.0%}" if limit_s else "",
        _equal(one),
        _memory(one),
    )


def _equal(one: SystemResult) -> str:
    errors = f", {one.errors} failed" if one.errors else ""
    counts = [f"{one.equal}/{one.compared}"] if one.compared else []
    counts += [f"+ {one.peer_equal}/{one.peer_compared}"] if one.peer_compared else []
    if not counts:
        return f"reference{errors}"
    apart = f", p ±{one.probability_difference:.0e}" if one.probability_difference else ""
    return f"{' '.join(counts)}{apart}{errors}"


def _memory(one: SystemResult) -> str:
    return str(sum(one.memory.values()) // _MIB)


def first_token_rows(result: WorkloadResult) -> list[tuple[str, ...]]:
    """Median milliseconds to the first token of W3's two questions, by system."""
    found: list[tuple[str, ...]] = []
    for name, one in result.systems.items():
        first, second = one.first_token(0), one.first_token(1)
        if first is not None and second is not None:
            found.append((name, *_milliseconds(first, second)))
    if found and result.limit_s:
        # Both questions' rows are counted with their mean length.
        own_s = result.limit_s["suffix"] / result.questions
        before_s = result.limit_s["encode"] + result.limit_s["prefix"]
        found.append(("computed limit", *_milliseconds(before_s + own_s, own_s)))
    return found


def _milliseconds(*seconds: float) -> tuple[str, ...]:
    return tuple(f"{each * 1e3:.1f}" for each in seconds)


def heading(report: Report) -> str:
    """Where and with what, in two lines."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items() if version)
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    return (
        f"{report.recipe}, {report.repeats} repeats, {machine.get('cores')} cores of {machine.get('processor')}, "
        f"{machine.get('memory_gib')} GiB{gpu}; {versions}\n{report.command} at {machine.get('commit')}"
    )


def print_report(report: Report, console: Console) -> None:
    """The tables of a run."""
    console.print(heading(report), highlight=False)
    times, checks = Table(*_TIMES), Table(*_CHECKS)
    for result in report.workloads:
        for number, (name, system, *cells) in enumerate(rows(result)):
            shown = "" if number else name
            times.add_row(shown, system, *cells[:4])
            if cells[4] or cells[5]:
                checks.add_row(name, system, *cells[4:])
        times.add_section()
        checks.add_section()
    console.print(times)
    console.print(checks)
    for result in report.workloads:
        found = first_token_rows(result)
        if found and result.questions == 2:
            _print_first_tokens(found, console)
    _print_bars(report, console)


def _print_bars(report: Report, console: Console) -> None:
    found = bars.bars(report)
    if not found:
        return
    table = Table("bar", "asked", "found", "reached", title="Targets of the project that this run tells about")
    for bar in found:
        table.add_row(*bar.cells)
    console.print(table)


def _print_first_tokens(found: Sequence[tuple[str, ...]], console: Console) -> None:
    table = Table("system", "first question, ms", "second question, ms", title="W3: time to first token")
    for row in found:
        table.add_row(*row)
    console.print(table)


def markdown(report: Report) -> str:
    """The same tables as Markdown."""
    lines = [f"# {report.title}", "", *heading(report).splitlines(), "", _line(COLUMNS), _line(("---",) * len(COLUMNS))]
    lines += [_line(row) for result in report.workloads for row in rows(result)]
    for result in report.workloads:
        found = first_token_rows(result)
        if found and result.questions == 2:
            lines += ["", "W3, median milliseconds to the first token:", ""]
            lines += [_line(("system", "first question", "second question")), _line(("---",) * 3), *map(_line, found)]
    lines += bars.markdown(bars.bars(report))
    lines += _memory_lines(report)
    if report.rates:
        lines += ["", "Rates measured in the same run, GFLOP/s (memory: GB/s):", ""]
        lines += [_line(("operation", "rate")), _line(("---",) * 2)]
        lines += [_line((name, f"{rate:.1f}")) for name, rate in report.rates.items()]
    lines += ["", REMARK]
    return "\n".join(lines) + "\n"


def _memory_lines(report: Report) -> list[str]:
    """Peak resident memory of each process, over all of the run's workloads."""
    peaks: dict[str, dict[str, int]] = {}
    for result in report.workloads:
        for name, one in result.systems.items():
            known = peaks.setdefault(name, {})
            known |= {half: max(num_bytes, known.get(half, 0)) for half, num_bytes in one.memory.items()}
    cells = [
        (name, ", ".join(f"{half} {num_bytes // _MIB}" for half, num_bytes in known.items()))
        for name, known in peaks.items()
        if known
    ]
    return [
        "",
        "Peak resident memory, MiB:",
        "",
        _line(("system", "processes")),
        _line(("---",) * 2),
        *map(_line, cells),
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
