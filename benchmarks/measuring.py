"""Runs the workloads: every system in turn on the same pictures and questions, repeat after repeat."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from benchmarks.checkpoints import Recipe
from benchmarks.comparing import compare
from benchmarks.results import SystemResult, WorkloadResult
from benchmarks.systems.registry import REFERENCE, open_system
from benchmarks.systems.system import System
from benchmarks.workload import Outcome, Workload
from benchmarks.workloads import Scale, build

Tell = Callable[[str], None]
# The number of a repeat that is not counted.
WARM_UP = 9_000
WARM_UP_QUESTIONS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        recipe: The checkpoint's.
        checkpoint: Its directory.
        scale: How large the workloads are.
        workloads: Names, in order.
        systems: Names, in the order of their turns.
        repeats: Of every workload.
        whole_repeats: Of the systems that are transformers' whole model, which take long.
        whole_questions: Workloads of more questions are not given to them.
    """

    recipe: Recipe
    checkpoint: Path
    scale: Scale
    workloads: Sequence[str]
    systems: Sequence[str]
    repeats: int = 3
    whole_repeats: int = 3
    whole_questions: int = 64

    def build(self, name: str, repeat: int) -> Workload:
        """A workload of the plan."""
        return build(name, self.recipe, self.scale, repeat)


def measure(plan: Plan, tell: Tell) -> Iterator[WorkloadResult]:
    """Each workload's result as it is done. Systems are started anew where the engines' number or memory changes.

    Raises `BenchmarkError`.
    """
    for (kv_tokens, doors), names in groupby(plan.workloads, key=lambda name: _setting(plan.build(name, 0))):
        with _started(plan, kv_tokens, doors, tell) as systems:
            for name in names:
                yield _measure_one(plan, name, systems, tell)


def _setting(workload: Workload) -> tuple[int | None, int]:
    return workload.kv_tokens, workload.doors


@contextmanager
def _started(plan: Plan, kv_tokens: int | None, doors: int, tell: Tell) -> Iterator[dict[str, System]]:
    """Every system, loaded."""
    systems = {name: open_system(name) for name in plan.systems if not (doors > 1 and _is_whole(name))}
    try:
        for name, system in systems.items():
            tell(f"starting {name}")
            system.start(plan.checkpoint, kv_tokens, doors)
        yield systems
    finally:
        for system in systems.values():
            system.stop()


def _warm_up(plan: Plan, name: str, systems: Mapping[str, System]) -> None:
    """A few questions of the same kind about another picture, not counted: what comes late is then there."""
    workload = plan.build(name, WARM_UP)
    few = [question for question in workload.questions if question.picture == 0][:WARM_UP_QUESTIONS]
    for system in systems.values():
        system.run(replace(workload, questions=tuple(few), pictures=workload.pictures[:1]))


def _measure_one(plan: Plan, name: str, systems: Mapping[str, System], tell: Tell) -> WorkloadResult:
    first = plan.build(name, 0)
    tokens = first.pictures[0].width * first.pictures[0].height // plan.recipe.unit**2
    result = WorkloadResult(name, len(first.pictures), len(first.questions), tokens)
    result.systems = {system: SystemResult() for system in plan.systems}
    _warm_up(plan, name, systems)
    for repeat in range(plan.repeats):
        workload = plan.build(name, repeat)
        outcomes: dict[str, Outcome] = {}
        for system, one in result.systems.items():
            one.skipped = one.skipped or _why_skipped(plan, system, systems, workload)
            if not one.skipped and not (_is_whole(system) and repeat >= plan.whole_repeats):
                outcomes[system] = _run(systems[system], workload)
                tell(f"{name} {repeat + 1}/{plan.repeats} {system}: {outcomes[system].seconds:.3f} s")
        _note(result, outcomes, workload)
    for name_, system_ in systems.items():
        result.systems[name_].memory = _peaks(system_)
    return result


def _run(system: System, workload: Workload) -> Outcome:
    if workload.is_after_restart:
        system.run(workload)
        system.restart()
    return system.run(workload)


def _is_whole(name: str) -> bool:
    return name.startswith(REFERENCE)


def _why_skipped(plan: Plan, name: str, systems: Iterable[str], workload: Workload) -> str:
    if name not in systems:
        return "it has one engine only"
    if _is_whole(name) and len(workload.questions) > plan.whole_questions:
        return f"more than {plan.whole_questions} questions would take too long"
    return ""


def _note(result: WorkloadResult, outcomes: dict[str, Outcome], workload: Workload) -> None:
    """Adds a repeat. The whole model is the reference; where it did not run, the first system that did."""
    if not outcomes:
        return
    reference = REFERENCE if REFERENCE in outcomes else next(iter(outcomes))
    for name, outcome in outcomes.items():
        one = result.systems[name]
        one.seconds.append(outcome.seconds)
        one.time_s.append([answer.time_s for answer in outcome.answers])
        if workload.is_streamed:
            one.first_token_s.append([answer.first_token_s or answer.time_s for answer in outcome.answers])
        one.tokens = sum(answer.num_tokens for answer in outcome.answers)
        one.errors += sum(answer.error is not None for answer in outcome.answers)
        if name != reference:
            agreement = compare(outcome.answers, outcomes[reference].answers, is_ending=workload.is_ending)
            one.compared_with = one.compared_with or reference
            one.equal += agreement.equal
            one.compared += agreement.compared
            one.probability_difference = max(one.probability_difference, agreement.probability_difference)


def _peaks(system: System) -> dict[str, int]:
    """Peak bytes by half; several processes of a half are added up."""
    peaks: dict[str, int] = {}
    for memory in system.memory():
        peaks[memory.half] = peaks.get(memory.half, 0) + memory.peak_bytes
    return peaks
