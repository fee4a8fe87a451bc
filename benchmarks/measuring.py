"""Runs the workloads: every system in turn on the same pictures and questions, repeat after repeat."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from benchmarks.checkpoints import Recipe
from benchmarks.comparing import compare
from benchmarks.results import SystemResult, WorkloadResult
from benchmarks.systems.registry import ON_DISK, OVER_HTTP, REFERENCE, ROUTED, open_system
from benchmarks.systems.system import CPU, Place, System
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
        whole_questions: Workloads of more questions are not timed with them.
        sample_questions: Of workloads that are not timed with it the whole model answers so many, for their tokens.
        place: Where the systems compute.
        reference: The system whose answers are right.
        open: Makes a system of its name, not yet started.
    """

    recipe: Recipe
    checkpoint: Path
    scale: Scale
    workloads: Sequence[str]
    systems: Sequence[str]
    repeats: int = 3
    whole_repeats: int = 3
    whole_questions: int = 64
    sample_questions: int = 16
    place: Place = CPU
    reference: str = REFERENCE
    open: Callable[[str, Place], System] = open_system

    def build(self, name: str, repeat: int) -> Workload:
        """A workload of the plan."""
        return build(name, self.recipe, self.scale, repeat)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a system made of a repeat: the answers to the questions at `places`, all or a sample."""

    places: Sequence[int]
    outcome: Outcome
    is_timed: bool


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
    """Every system that takes part, loaded."""
    names = [name for name in plan.systems if _takes_part(name, kv_tokens, doors)]
    systems = {name: plan.open(name, plan.place) for name in names}
    try:
        for name, system in systems.items():
            tell(f"starting {name}")
            system.start(plan.checkpoint, kv_tokens, 1 if _is_whole(name) else doors)
        yield systems
    finally:
        for system in systems.values():
            system.stop()


def _takes_part(name: str, kv_tokens: int | None, doors: int) -> bool:
    """A whole model has one engine, and of several doors the reference alone is of use; some are others elsewhere."""
    if name == ROUTED:
        return doors > 1
    if name == ON_DISK:
        return kv_tokens is not None
    return doors == 1 or not _is_whole(name) or name == REFERENCE


def _warm_up(plan: Plan, name: str) -> Workload:
    """A few questions of the same kind about other pictures, not counted: what comes late is then there.

    About as many pictures as there are engines: each has something to do, also behind one gateway.
    """
    workload = plan.build(name, WARM_UP)
    pictures = workload.pictures[: workload.doors]
    few = [
        question
        for place in range(len(pictures))
        for question in [each for each in workload.questions if each.picture == place][:WARM_UP_QUESTIONS]
    ]
    return replace(workload, questions=tuple(few), pictures=pictures)


def _measure_one(plan: Plan, name: str, systems: Mapping[str, System], tell: Tell) -> WorkloadResult:
    first = plan.build(name, 0)
    tokens = first.pictures[0].width * first.pictures[0].height // plan.recipe.unit**2
    result = WorkloadResult(name, len(first.pictures), len(first.questions), tokens)
    result.systems = {system: SystemResult(skipped=_why_untimed(plan, system, first)) for system in plan.systems}
    warm_up = _warm_up(plan, name)
    for system_name, system in systems.items():
        is_one = _is_whole(system_name)
        system.run(warm_up.part(range(len(warm_up.questions))) if is_one else warm_up)
    for repeat in range(plan.repeats):
        workload = plan.build(name, repeat)
        turns: dict[str, _Turn] = {}
        for system_name, system in systems.items():
            turn = _turn(plan, result, system_name, system, workload, repeat)
            if turn is not None:
                turns[system_name] = turn
                tell(f"{name} {repeat + 1}/{plan.repeats} {system_name}: {turn.outcome.seconds:.3f} s")
        _note(result, turns, workload, plan.reference)
    for system_name, system in systems.items():
        result.systems[system_name].memory = _peaks(system)
    return result


def _turn(
    plan: Plan, result: WorkloadResult, name: str, system: System, workload: Workload, repeat: int
) -> _Turn | None:
    """One system on one repeat; None where it sits out."""
    if _is_whole(name) and repeat >= plan.whole_repeats:
        return None
    if not result.systems[name].skipped:
        return _Turn(range(len(workload.questions)), _run(plan, name, system, workload), is_timed=True)
    if name != REFERENCE or repeat:
        return None
    places = _sample(len(workload.questions), plan.sample_questions)
    return _Turn(places, system.run(workload.part(places)), is_timed=False)


def _run(plan: Plan, name: str, system: System, workload: Workload) -> Outcome:
    if workload.is_after_restart and not _is_whole(name):
        system.run(workload)
        system.restart()
        # A new process is slow at first, whoever's it is: the caches are what counts here.
        system.run(_warm_up(plan, workload.name))
    if workload.is_asked_again and not _is_whole(name):
        system.run(workload)
    return system.run(workload)


def _sample(count: int, most: int) -> list[int]:
    """At most so many places, spread evenly."""
    taken = min(count, most)
    return [number * count // taken for number in range(taken)] if taken else []


def _is_whole(name: str) -> bool:
    return name.startswith(REFERENCE)


def _why_untimed(plan: Plan, name: str, workload: Workload) -> str:
    """Why a system is not timed on a workload; empty where it is."""
    if name == ROUTED and workload.doors == 1:
        return f"with one engine it is {OVER_HTTP}"
    if name == ON_DISK and workload.kv_tokens is None:
        return f"with plenty of memory it is {OVER_HTTP}"
    if not _is_whole(name):
        return ""
    asked = f"; asked {min(plan.sample_questions, len(workload.questions))} for their tokens"
    what_for = asked if name == REFERENCE else ""
    if workload.doors > 1:
        return f"it has one engine only{what_for}"
    if len(workload.questions) > plan.whole_questions:
        return f"more than {plan.whole_questions} questions would take too long{what_for}"
    return ""


def _note(result: WorkloadResult, turns: Mapping[str, _Turn], workload: Workload, reference: str) -> None:
    """Adds a repeat: times of those that were timed, and every answer beside the reference's."""
    for name, turn in turns.items():
        one = result.systems[name]
        one.errors += sum(answer.error is not None for answer in turn.outcome.answers)
        if turn.is_timed:
            _note_times(one, turn.outcome, workload)
    # Where the reference did not run, the first system that did stands in.
    against = reference if reference in turns else next(iter(turns), None)
    for name, turn in turns.items():
        if name != against and against is not None:
            _note_agreement(
                result.systems[name], turn, turns[against], workload, against, is_right=against == reference
            )


def _note_times(one: SystemResult, outcome: Outcome, workload: Workload) -> None:
    one.seconds.append(outcome.seconds)
    one.time_s.append([answer.time_s for answer in outcome.answers])
    if workload.is_streamed:
        one.first_token_s.append([answer.first_token_s or answer.time_s for answer in outcome.answers])
    one.tokens = sum(answer.num_tokens for answer in outcome.answers)


def _note_agreement(
    one: SystemResult, turn: _Turn, reference: _Turn, workload: Workload, name: str, *, is_right: bool
) -> None:
    """Compares the answers that both gave."""
    mine = dict(zip(turn.places, turn.outcome.answers, strict=True))
    theirs = dict(zip(reference.places, reference.outcome.answers, strict=True))
    both = [place for place in mine if place in theirs]
    found = compare([mine[place] for place in both], [theirs[place] for place in both], is_ending=workload.is_ending)
    one.probability_difference = max(one.probability_difference, found.probability_difference)
    one.agreeing_words += found.agreeing_words
    one.words += found.words
    if is_right:
        one.compared_with = name
        one.equal += found.equal
        one.compared += found.compared
    else:
        one.peer_equal += found.equal
        one.peer_compared += found.compared


def _peaks(system: System) -> dict[str, int]:
    """Peak bytes by half; several processes of a half are added up."""
    peaks: dict[str, int] = {}
    for memory in system.memory():
        peaks[memory.half] = peaks.get(memory.half, 0) + memory.peak_bytes
    return peaks
