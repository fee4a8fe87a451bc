"""The harness from end to end, on a tiny checkpoint and with real worker processes."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import machine, run
from benchmarks.checkpoints import making
from benchmarks.open_loop import Setting, held, middle, point, saturating_rate
from benchmarks.results import load
from benchmarks.systems.asking import Once, ask_all
from benchmarks.workload import Answer, Outcome, Workload
from benchmarks.workloads import FULL, TINY, build, open_loop
from lookonce.cli import app


@pytest.fixture
def tiny_cache(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "make", lambda name: making.make(name, tiny_checkpoint.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # The rates themselves do not matter here.
    monkeypatch.setattr("benchmarks.rates._ROUND_S", 0.001)
    monkeypatch.setattr("benchmarks.rates.BANDWIDTH_BYTES", 1 << 20)


@pytest.mark.usefixtures("tiny_cache")
def test_systems_are_measured_compared_and_written(tmp_path: Path) -> None:
    """The whole model and the engine in process answer the same pictures with the same tokens, beside a limit."""
    arguments = [
        "--recipe",
        "qwen2-vl-tiny",
        "--tiny",
        "--workloads",
        "W1s,W4",
        "--repeats",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert run.main([*arguments, "--systems", "transformers,lookonce-inprocess"]) == 0
    report = load(tmp_path / "bench.json")
    assert [result.name for result in report.workloads] == ["W1s", "W4"]
    for result in report.workloads:
        ours = result.systems["lookonce-inprocess"]
        assert ours.compared_with == "transformers"
        assert ours.equal == ours.compared == 2 * result.questions
        assert ours.probability_difference < 1e-4
        assert len(ours.seconds) == 2
        assert ours.errors == 0
        assert ours.memory["whole"] > 1 << 20
        assert result.limit_total_s is not None
        assert set(result.limit_s) == {"encode", "prefix", "suffix", "decode"}
    assert json.loads((tmp_path / "bench.json").read_text())["machine"]["versions"]["torch"]
    assert (tmp_path / "bench.md").exists()


def test_unknown_names_end_a_run_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A workload, system or model that does not exist is named, and nothing is started."""
    assert run.main(["--workloads", "W99"]) == 1
    assert run.main(["--systems", "nothing"]) == 1
    assert run.main(["--recipe", "nothing"]) == 1
    assert run.main(["--workloads", "W9"]) == 1
    errors = capsys.readouterr().err
    assert "W99" in errors
    assert "benchmarks.open_loop" in errors


def test_a_command_can_be_typed_again() -> None:
    """Whoever called it, the recorded command is that of the benchmark with its arguments."""
    assert machine.command(arguments=["--title", "two words"]) == "python -m benchmarks.run --title 'two words'"


def test_the_command_line_reaches_the_benchmarks() -> None:
    """`lookonce bench` hands its options over, and its exit status back."""
    assert CliRunner().invoke(app, ["bench", "--workloads", "W99"]).exit_code == 1


async def test_questions_are_asked_when_they_are_due(tiny_recipe) -> None:  # type: ignore[no-untyped-def]
    """An answer's time counts from when its question was due, and clients leave at the deadline."""
    workload = open_loop(tiny_recipe, TINY, 0, rate=100.0, duration_s=0.2, deadline_s=0.3)

    async def ask(group: tuple[int, ...]) -> list[Answer]:
        await asyncio.sleep(60.0 if group[0] == 1 else 0.0)
        return [Answer(str(place), 1, 0.0, 0.0) for place in group]

    outcome = await ask_all(workload, ask)
    assert [answer.text for answer in outcome.answers if not answer.error] == [
        str(place) for place in range(len(workload.questions)) if place != 1
    ]
    assert outcome.answers[1].error is not None


async def test_no_more_are_in_flight_than_allowed(tiny_recipe) -> None:  # type: ignore[no-untyped-def]
    """A workload's bound on unanswered questions is kept."""
    workload = build("W5", tiny_recipe, TINY, 0)
    running = most = 0

    async def ask(group: tuple[int, ...]) -> list[Answer]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return [Answer("", 1, 0.0) for _ in group]

    await ask_all(workload, ask)
    assert most == workload.in_flight


async def test_a_failed_upload_is_tried_again() -> None:
    """Whoever asks next does not meet the old failure."""
    tries: list[int] = []

    async def make(key: int) -> str:
        tries.append(key)
        if len(tries) == 1:
            raise OSError("refused")
        return "id"

    once = Once(make)
    with pytest.raises(OSError, match="refused"):
        await once.get(1)
    assert await once.get(1) == "id"


async def test_a_picture_is_uploaded_once() -> None:
    """However many questions wait for it."""
    made: list[int] = []

    async def make(key: int) -> str:
        made.append(key)
        await asyncio.sleep(0)
        return f"id {key}"

    once = Once(make)
    assert await asyncio.gather(once.get(1), once.get(1), once.get(2)) == ["id 1", "id 1", "id 2"]
    assert made == [1, 2]


def test_goodput_counts_what_came_in_time(tiny_recipe) -> None:  # type: ignore[no-untyped-def]
    """First tokens after the target, and questions without an answer, are not good."""
    setting = Setting(tiny_recipe, TINY, duration_s=2.0, target_s=1.0, deadline_s=5.0)
    answers = (Answer("", 1, 3.0, 0.5), Answer("", 1, 3.0, 2.0), Answer("", 0, 5.0, error="left"))
    found = point(2.0, Outcome(4.0, answers), setting)
    assert (found.offered, found.goodput, found.refused) == (1.5, 0.5, 1)
    assert held([found, found]) == 1.0


def test_the_median_goodput_of_a_loads_repeats_counts(tiny_recipe) -> None:  # type: ignore[no-untyped-def]
    """Not the best, and not a mean of unlike runs."""
    setting = Setting(tiny_recipe, TINY, duration_s=1.0, target_s=1.0, deadline_s=5.0)
    points = [point(1.0, Outcome(1.0, (Answer("", 1, 1.0, 0.5),) * count), setting) for count in (9, 2, 5)]
    assert middle(points).goodput == 5.0


class Constant:
    """A system that answers ten questions a second, all at the same time."""

    name = "constant"

    def run(self, workload: Workload) -> Outcome:
        answers = tuple(Answer("", 1, 0.1, 0.1) for _ in workload.questions)
        return Outcome(len(workload.questions) / 10, answers)


def test_the_saturating_rate_is_that_of_a_burst_as_long_as_the_load(tiny_recipe) -> None:  # type: ignore[no-untyped-def]
    """As many questions come at once as will come by and by, so that encoding has the same share."""
    system, asked = Constant(), []
    original = system.run
    system.run = lambda workload: asked.append(workload) or original(workload)  # type: ignore[method-assign,func-returns-value]
    setting = Setting(tiny_recipe, FULL, duration_s=30.0, target_s=1.0, deadline_s=5.0)
    assert saturating_rate(system, setting) == pytest.approx(10.0)  # type: ignore[arg-type]  # as much of one as is used
    assert 240 < len(asked[-1].questions) < 360
