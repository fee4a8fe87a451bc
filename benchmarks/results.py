"""What a run of the benchmarks found, as values that are written to and read from JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

DIRECTORY = Path(__file__).resolve().parent / "results"


@dataclass(slots=True)
class SystemResult:
    """One system on one workload.

    Attributes:
        seconds: Wall clock of each repeat.
        first_token_s: For each repeat, of each question; empty where nobody looked.
        time_s: For each repeat, of each question, until its answer was complete.
        tokens: Generated in one repeat.
        compared_with: The system whose answers are right.
        equal: Answers equal to its.
        compared: Answers that were compared with its.
        peer_equal: In repeats that it sat out, answers equal to the first other system's.
        peer_compared: Answers that were compared with that one's.
        agreeing_words: Words before each compared answer's first difference.
        words: Of all the answers that were compared with.
        probability_difference: The largest, of scored choices.
        errors: Questions without an answer.
        memory: Largest resident bytes by what the process holds.
        skipped: Why it was not measured.
    """

    seconds: list[float] = field(default_factory=list)
    first_token_s: list[list[float]] = field(default_factory=list)
    time_s: list[list[float]] = field(default_factory=list)
    tokens: int = 0
    compared_with: str = ""
    equal: int = 0
    compared: int = 0
    peer_equal: int = 0
    peer_compared: int = 0
    agreeing_words: int = 0
    words: int = 0
    probability_difference: float = 0.0
    errors: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    skipped: str = ""

    @property
    def median_s(self) -> float:
        """Of the repeats' wall clocks."""
        return median(self.seconds)

    def first_token(self, place: int) -> float | None:
        """Median over the repeats of the time to first token of the question at `place`."""
        times = [repeat[place] for repeat in self.first_token_s if place < len(repeat)]
        return median(times) if times else None


@dataclass(slots=True)
class WorkloadResult:
    """One workload: its size, its limit where one is computed, and every system's result."""

    name: str
    pictures: int
    questions: int
    image_tokens: int
    limit_s: dict[str, float] = field(default_factory=dict)
    limit_gigaflop: dict[str, float] = field(default_factory=dict)
    systems: dict[str, SystemResult] = field(default_factory=dict)

    @property
    def limit_total_s(self) -> float | None:
        """All phases together; None where no limit is computed."""
        return sum(self.limit_s.values()) if self.limit_s else None


@dataclass(slots=True)
class Report:
    """A whole run: where, with what, and what came of it."""

    title: str
    machine: dict[str, Any]
    command: str
    recipe: str
    repeats: int
    workloads: list[WorkloadResult] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    def save(self, directory: Path = DIRECTORY) -> Path:
        """Writes `<title>.json` and returns its path."""
        return write_values(directory, self.title, asdict(self))


def write_values(directory: Path, title: str, values: Any) -> Path:
    """Writes JSON values to `<title>.json`, makes its directory if need be, and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{title}.json"
    path.write_text(json.dumps(values, indent=1) + "\n")
    return path


def write_table(directory: Path, title: str, text: str) -> Path:
    """Writes Markdown to `<title>.md`, makes its directory if need be, and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{title}.md"
    path.write_text(text)
    return path


def load(path: Path) -> Report:
    """The report that `save` wrote."""
    return report_from_json(json.loads(path.read_text()))


def report_from_json(values: dict[str, Any]) -> Report:
    """The report whose values these are."""
    workloads = [
        WorkloadResult(**{**one, "systems": {name: SystemResult(**each) for name, each in one["systems"].items()}})
        for one in values["workloads"]
    ]
    return Report(**{**values, "workloads": workloads})
