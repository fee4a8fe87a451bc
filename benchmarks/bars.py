"""The performance targets, worked out of a run's medians. A bar whose workloads were not measured is left out.

Those of the benchmarks with a command of their own are in their modules; `benchmarks.summary` prints them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results import Report, SystemResult, WorkloadResult

OURS = "lookonce"
SERVED = "lookonce-http"
ROUTED = "lookonce-routed"
ON_DISK = "lookonce-disk"
IN_PROCESS = "lookonce-inprocess"
PEER = "vllm"
WHOLE = "transformers"


@dataclass(frozen=True, slots=True)
class Bar:
    """What was asked and what was found; `at_least` tells which side of `asked` is good."""

    name: str
    asked: float
    found: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether the bar is reached."""
        return self.found >= self.asked if self.at_least else self.found <= self.asked

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Name, what was asked, what was found, whether it is reached."""
        side, reached = "≥" if self.at_least else "≤", "yes" if self.holds else "no"
        return self.name, f"{side} {self.asked:g}", f"{self.found:.3g}", reached


def bars(report: Report) -> list[Bar]:
    """Every bar that the run has the numbers for."""
    results = {result.name: result for result in report.workloads}
    found: list[Bar] = []
    for bar in (*_against_peer(results), *_against_whole(results), *_of_limit(results), *_of_serving(results)):
        found += [bar] if bar is not None else []
    return [*found, *_growth(results), *_tokens(report)]


def markdown(found: Sequence[Bar]) -> list[str]:
    """The bars as lines of a table."""
    if not found:
        return []
    lines = ["", "| bar | asked | found | reached |", "| --- | --- | --- | --- |"]
    return [*lines, *("| " + " | ".join(bar.cells) + " |" for bar in found)]


def _median(results: Mapping[str, WorkloadResult], workload: str, system: str) -> float | None:
    """A system's median seconds; of vLLM that of its fastest settings."""
    if workload not in results:
        return None
    return min((one.median_s for one in _of(results[workload], system) if one.seconds), default=None)


def _of(result: WorkloadResult, system: str) -> list[SystemResult]:
    """The system's result; with vLLM that of every setting of it, `vllm:16384` besides `vllm`."""
    return [one for name, one in result.systems.items() if name == system or name.startswith(f"{system}:")]


def _ratio(name: str, asked: float, above: float | None, below: float | None, *, at_least: bool = True) -> Bar | None:
    return Bar(name, asked, above / below, at_least) if above is not None and below else None


def _against_peer(results: Mapping[str, WorkloadResult]) -> list[Bar | None]:
    asked = {"W1": 1.3, "W1s": 1.15, "W2": 1.2, "W4": 1.35, "W5": 2.0, "W6": 2.0, "W7": 2.0}
    ours = [(name, SERVED, "") for name in asked]
    ours += [("W5", ON_DISK, " with a disk"), ("W7", ROUTED, " through one gateway")]
    found = [
        _ratio(
            f"{name}, vllm's time over ours{how}",
            asked[name],
            _median(results, name, PEER),
            _median(results, name, one),
        )
        for name, one, how in ours
    ]
    extra = _ratio("an extra question, vllm's over ours", 1.7, _extra(results, PEER), _extra(results, SERVED))
    second = {name: _second_token(results, name) for name in (PEER, SERVED)}
    first_token = _ratio("W3 second question, ours over vllm's", 0.7, second[SERVED], second[PEER], at_least=False)
    return [*found, extra, first_token]


def _extra(results: Mapping[str, WorkloadResult], system: str) -> float | None:
    """Seconds of one more question on an image, from W1 and W1s."""
    many, few = _median(results, "W1", system), _median(results, "W1s", system)
    if many is None or few is None:
        return None
    return (many - few) / (results["W1"].questions - results["W1s"].questions)


def _second_token(results: Mapping[str, WorkloadResult], system: str) -> float | None:
    if "W3" not in results:
        return None
    times = (one.first_token(1) for one in _of(results["W3"], system))
    return min((time_s for time_s in times if time_s is not None), default=None)


def _against_whole(results: Mapping[str, WorkloadResult]) -> list[Bar | None]:
    return [
        _ratio(f"{name}, transformers' over ours", least, _median(results, name, WHOLE), _median(results, name, SERVED))
        for name, least in (("W1", 20.0), ("W2", 10.0))
    ]


def _of_limit(results: Mapping[str, WorkloadResult]) -> list[Bar | None]:
    return [
        _ratio(f"{name}, share of the limit", 0.85, results[name].limit_total_s, _median(results, name, SERVED))
        for name in ("W1", "W2")
        if name in results
    ]


def _of_serving(results: Mapping[str, WorkloadResult]) -> list[Bar | None]:
    """What gRPC and the gateway add to the engine in process."""
    served, bare = (_second_token(results, name) for name in (SERVED, IN_PROCESS))
    added = None
    if served is not None and bare is not None:
        added = Bar("W3 second question, ms added by serving", 5.0, 1e3 * (served - bare), at_least=False)
    through = _median(results, "W1", SERVED), _median(results, "W1", IN_PROCESS)
    return [_ratio("W1, over HTTP over in process", 1.05, *through, at_least=False), added]


def _growth(results: Mapping[str, WorkloadResult]) -> list[Bar]:
    """A question among 512 on one image beside one among 64."""
    many, few = (_median(results, f"W8-questions-{size}", SERVED) for size in (512, 64))
    return (
        [Bar("W8, a question at 512 over at 64", 1.1, many / 512 / (few / 64), at_least=False)] if many and few else []
    )


def _tokens(report: Report) -> list[Bar]:
    """The share of our answers that are the whole model's, and how many questions have none."""
    measured = (each.systems.items() for each in report.workloads)
    ours = [one for systems in measured for name, one in systems if name.startswith(OURS)]
    compared = sum(one.compared for one in ours)
    if not compared:
        return []
    return [
        Bar("answers equal to the whole model's, of all ours", 1.0, sum(one.equal for one in ours) / compared),
        Bar("questions of ours without an answer", 0.0, sum(one.errors for one in ours), at_least=False),
    ]
