"""How systems take turns, who is timed, and what answers are compared with, with systems that answer at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks.checkpoints import RECIPES
from benchmarks.measuring import Plan, measure
from benchmarks.results import WorkloadResult
from benchmarks.systems.system import Place, ProcessMemory
from benchmarks.workload import Answer, Outcome, Workload
from benchmarks.workloads import FULL, TINY


@dataclass
class Instant:
    """A system whose answers are the questions; `wrong` says which are not."""

    name: str
    log: list[tuple[str, str, int]]
    wrong: Callable[[str], bool] = lambda _: False
    doors: int = 0
    asked: list[Workload] = field(default_factory=list)

    def start(self, checkpoint: Path, kv_tokens: int | None = None, doors: int = 1) -> None:
        self.doors = doors

    def run(self, workload: Workload) -> Outcome:
        assert all(question.door < self.doors for question in workload.questions)
        self.asked.append(workload)
        self.log.append((self.name, "run", len(workload.questions)))
        texts = ("nothing" if self.wrong(question.text) else question.text for question in workload.questions)
        return Outcome(1.0, tuple(Answer(text, 3, 1.0, 0.5) for text in texts))

    def restart(self) -> None:
        self.log.append((self.name, "restart", 0))

    def memory(self) -> Sequence[ProcessMemory]:
        return [ProcessMemory("whole", 1, 100), ProcessMemory("whole", 2, 20)]

    def stop(self) -> None:
        self.doors = 0


@pytest.fixture
def log() -> list[tuple[str, str, int]]:
    return []


@pytest.fixture
def plan(log: list[tuple[str, str, int]]) -> Plan:
    return Plan(
        recipe=RECIPES["qwen2-vl-tiny"],
        checkpoint=Path(),
        scale=TINY,
        workloads=(),
        systems=("transformers", "vllm", "lookonce-http"),
        repeats=2,
        whole_repeats=1,
        open=lambda name, place: Instant(name, log),
    )


def results(plan: Plan) -> list[WorkloadResult]:
    return list(measure(plan, lambda _: None))


def test_every_answer_is_compared_with_the_whole_models(plan: Plan) -> None:
    """In repeats that the whole model sits out, the first other system stands in, and is told apart."""
    [result] = results(replace(plan, workloads=("W1",)))
    ours = result.systems["lookonce-http"]
    assert (ours.compared_with, ours.equal, ours.compared) == ("transformers", 8, 8)
    assert (ours.peer_equal, ours.peer_compared) == (8, 8)
    assert [len(one.seconds) for one in result.systems.values()] == [1, 2, 2]
    assert ours.memory == {"whole": 120}


def test_a_wrong_answer_is_counted(plan: Plan, log: list[tuple[str, str, int]]) -> None:
    """One wrong answer of eight."""

    def open_system(name: str, place: Place) -> Instant:
        return Instant(name, log, wrong=lambda text: name.startswith("lookonce") and "people" in text)

    [result] = results(replace(plan, workloads=("W1",), open=open_system))
    assert result.systems["vllm"].equal == 8
    assert result.systems["lookonce-http"].equal == 7


def test_the_whole_model_answers_a_sample_where_all_would_take_too_long(plan: Plan) -> None:
    """Its time is not taken, and its tokens are compared with those of the same questions."""
    [result] = results(replace(plan, workloads=("W5",), scale=FULL, sample_questions=5, repeats=1))
    whole, ours = result.systems["transformers"], result.systems["lookonce-http"]
    assert not whole.seconds
    assert "asked 5" in whole.skipped
    assert (ours.equal, ours.compared) == (5, 5)


def test_the_whole_model_has_one_engine_where_others_have_two(plan: Plan) -> None:
    """It answers questions of both doors, for their tokens."""
    [result] = results(replace(plan, workloads=("W7",)))
    ours = result.systems["lookonce-http"]
    assert (ours.equal, ours.compared) == (4, 4)
    assert "one engine" in result.systems["transformers"].skipped


def test_no_system_is_measured_twice_under_two_names(plan: Plan) -> None:
    """One gateway before all engines where there are several, a disk where memory is small."""
    systems = ("lookonce-http", "lookonce-routed", "lookonce-disk")
    alone, album, fleet = results(replace(plan, systems=systems, workloads=("W2", "W5", "W7")))
    assert [len(one.seconds) for one in alone.systems.values()] == [2, 0, 0]
    assert [len(one.seconds) for one in album.systems.values()] == [2, 0, 2]
    assert [len(one.seconds) for one in fleet.systems.values()] == [2, 2, 0]
    assert "lookonce-http" in alone.systems["lookonce-routed"].skipped
    assert "lookonce-http" in fleet.systems["lookonce-disk"].skipped


def test_what_is_asked_again_was_asked_before(plan: Plan, log: list[tuple[str, str, int]]) -> None:
    """Of every system but the whole model the second time counts; the first questions are the warm-up's."""
    [result] = results(replace(plan, workloads=("W1s-again",), repeats=1))
    ours = [(what, count) for name, what, count in log if name == "lookonce-http"]
    assert ours == [("run", 2), ("run", 2), ("run", 2)]
    assert [count for name, _, count in log if name == "transformers"] == [2, 2]
    assert [len(one.seconds) for one in result.systems.values()] == [1, 1, 1]


def test_after_a_restart_a_warm_up_comes_first(plan: Plan, log: list[tuple[str, str, int]]) -> None:
    """Every system but the whole model, which keeps nothing, is asked, restarted, warmed up, and asked again."""
    results(replace(plan, workloads=("W6",), repeats=1))
    for name in ("vllm", "lookonce-http"):
        assert [entry[1:] for entry in log if entry[0] == name] == [
            ("run", 2),
            ("run", 8),
            ("restart", 0),
            ("run", 2),
            ("run", 8),
        ]
    assert [entry[1:] for entry in log if entry[0] == "transformers"] == [("run", 2), ("run", 8)]


def test_another_system_may_be_the_reference(plan: Plan) -> None:
    """Options are compared with the exact engine."""
    [result] = results(replace(plan, workloads=("W1s",), reference="vllm", systems=("lookonce-http", "vllm")))
    assert result.systems["lookonce-http"].compared_with == "vllm"
    assert result.systems["vllm"].compared == 0


def test_systems_are_started_where_the_plan_says(plan: Plan, log: list[tuple[str, str, int]]) -> None:
    """Each gets the plan's place."""
    places: list[Place] = []

    def open_system(name: str, place: Place) -> Instant:
        places.append(place)
        return Instant(name, log)

    results(replace(plan, workloads=("W1s",), place=Place("cuda", "bfloat16", 8), open=open_system))
    assert places == [Place("cuda", "bfloat16", 8)] * 3
