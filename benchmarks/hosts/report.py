"""The tables of a run."""

from collections.abc import Iterator
from statistics import median

from benchmarks.hosts.asking import Load
from benchmarks.hosts.expected import LEAST_MBIT, TIE, crossing_mbit, measured_crossing_mbit
from benchmarks.hosts.measuring import ONE, PACKED, TWO, Hosts, Point


def measured_loads(found: Hosts) -> list[Load]:
    """What was asked of two hosts, in its order."""
    points = (point for point in found.points if point.system == TWO)
    return list(dict.fromkeys(Load(point.tokens, point.questions, point.pictures) for point in points))


def measured_ratios(found: Hosts, system: str, load: Load, *, first: bool = False) -> list[tuple[float, float]]:
    """(rate, two hosts' time as a part of one host's), of the first or of the last answer."""
    alone = _seconds(found.point(ONE, 0, load), first)
    points = (point for point in found.points if point.system == system)
    return sorted(
        (point.mbit, _seconds(point, first) / alone)
        for point in points
        if (point.tokens, point.questions, point.pictures) == (load.tokens, load.questions, load.pictures)
    )


def expected_ratio(found: Hosts, load: Load, mbit: float, *, first: bool = False) -> float:
    """The same from what each part takes."""
    expected_s = expected_seconds(found, load, mbit, first=first)
    if first:
        return expected_s / found.point(ONE, 0, load).median_first_s
    return expected_s / found.parts(load.tokens, load.questions).one_host_s(load.pictures)


def expected_seconds(found: Hosts, load: Load, mbit: float, *, first: bool = False) -> float:
    """Two hosts' time from what each part takes."""
    parts = found.parts(load.tokens, load.questions)
    seconds = parts.two_hosts_first_s if first else parts.two_hosts_s
    return seconds(load.pictures, mbit, found.delay_s)


def _seconds(point: Point, first: bool) -> float:
    return point.median_first_s if first else point.median_last_s


def markdown(found: Hosts, title: str) -> str:
    """The report."""
    return "\n".join(
        [*_head(found, title), *_crossings(found), *_times(found), *_compression(found), *_encodings(found)]
    )


def _head(found: Hosts, title: str) -> Iterator[str]:
    known = found.machine
    yield from ("# One host or two", "", f"`{found.command}`", "")
    yield (
        f"{known['processor']}, {known['system']}, commit {known['commit']}; {found.recipe}, vision half in "
        f"{found.dtypes[0]}, language half in {found.dtypes[1]}; medians of {found.repeats}, all in turn in one run."
    )
    yield ""
    yield (
        "Each host is a network namespace with one core. Two hosts: the vision worker on one; store, language worker, "
        "gateway and client on the other. One host: all of these on the latter's core. The delay of the link is "
        f"{found.delay_s * 1e3:g} ms each way. {found.equal} of {found.compared} answers are those that one host gave."
    )
    yield ""
    reached = ", ".join(f"{rate} → {mbit:g}" for rate, mbit in found.reached_mbit.items())
    yield from (f"What one TCP connection comes to, Mbit/s: {reached}.", "", f"![One host or two]({title}.png)", "")


def _crossings(found: Hosts) -> Iterator[str]:
    yield from ("## From which rate two hosts are faster", "", "Mbit/s; expected from the parts, and measured.", "")
    yield "| pictures at once | tokens | questions each | last answer, expected | measured | first answer, measured |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for load in measured_loads(found):
        expected = crossing_mbit(lambda mbit, load=load: expected_ratio(found, load, mbit))  # type: ignore[misc]
        last, first = (measured_ratios(found, TWO, load, first=wanted) for wanted in (False, True))
        yield (
            f"| {load.pictures} | {load.tokens} | {load.questions} | {_rate(expected, LEAST_MBIT)} | "
            f"{_measured_rate(last)} | {_measured_rate(first)} |"
        )
    yield ""


def _measured_rate(points: list[tuple[float, float]]) -> str:
    return _rate(measured_crossing_mbit(points), points[0][0])


def _rate(mbit: float | None, least: float) -> str:
    if mbit is None:
        return "never"
    return f"below {least:g}" if mbit <= least * 1.01 else f"{mbit:.3g}"


def _times(found: Hosts) -> Iterator[str]:
    rates = sorted({point.mbit for point in found.points if point.mbit})
    for first, what in ((True, "a picture's first answer begins"), (False, "everything is answered")):
        yield from (f"## Seconds until {what}", "")
        yield f"Measured (expected), at so many Mbit/s; **bold** where more than {TIE:.0%} faster than one host."
        yield ""
        yield f"| pictures | tokens | questions | {ONE} | {' | '.join(f'{rate:g} Mbit/s' for rate in rates)} |"
        yield "|" + "---:|" * (4 + len(rates))
        for load in measured_loads(found):
            alone = _seconds(found.point(ONE, 0, load), first)
            cells = [
                _cell(ratio * alone, expected_seconds(found, load, mbit, first=first), is_best=ratio < 1 - TIE)
                for mbit, ratio in measured_ratios(found, TWO, load, first=first)
            ]
            yield f"| {load.pictures} | {load.tokens} | {load.questions} | {alone:.2f} | {' | '.join(cells)} |"
        yield ""


def _cell(seconds: float, expected_s: float, *, is_best: bool) -> str:
    mark = "**" if is_best else ""
    return f"{mark}{seconds:.2f}{mark} ({expected_s:.2f})"


def _compression(found: Hosts) -> Iterator[str]:
    """Seconds to the last answer with compressed entries, beside those without."""
    loads = [load for load in measured_loads(found) if measured_ratios(found, PACKED, load)]
    yield from ("## Compressed entries", "", "Seconds until everything is answered, as they are and with `zstd`.", "")
    yield "| pictures | tokens | questions | Mbit/s | none | zstd | zstd / none |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for load in loads:
        alone = found.point(ONE, 0, load).median_last_s
        pairs = zip(measured_ratios(found, TWO, load), measured_ratios(found, PACKED, load), strict=True)
        for (rate, plain), (_, packed) in pairs:
            cells = f"{plain * alone:.2f} | {packed * alone:.2f} | {packed / plain:.2f}"
            yield f"| {load.pictures} | {load.tokens} | {load.questions} | {rate:g} | {cells} |"
    yield ""


def _encodings(found: Hosts) -> Iterator[str]:
    yield from (
        "## A picture",
        "",
        "| tokens | encoding, s | file, KB | entry, KB | with zstd, KB | ratio | zstd, ms | pays below, Mbit/s |",
    )
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for one in found.encodings:
        sizes = " | ".join(f"{size / 1e3:.0f}" for size in (one.file_bytes, one.entry_bytes, one.packed_bytes))
        ratio = f"{one.entry_bytes / one.packed_bytes:.2f}"
        packing = f"{one.packing_s * 1e3:.1f} | {one.packing_pays_mbit:.0f}"
        yield f"| {one.tokens} | {median(one.seconds):.3f} | {sizes} | {ratio} | {packing} |"
    yield ""
