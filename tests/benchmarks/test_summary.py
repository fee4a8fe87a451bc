"""Every performance target is found in the files that the benchmarks write."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import footprint, open_loop, real_shapes, summary
from benchmarks.checkpoints import RECIPES
from benchmarks.footprint import Footprint, Part
from benchmarks.real_shapes import HalfLoad, ModelResult
from benchmarks.results import Report, SystemResult, WorkloadResult
from benchmarks.workload import Answer, Outcome

MIB = 1 << 20


@pytest.fixture
def held_memory() -> Footprint:
    vision = Part("vision", 500 * MIB, 490 * MIB, 350 * MIB, 120 * MIB, 0)
    language = Part("language", 1000 * MIB, 900 * MIB, 350 * MIB, 480 * MIB, 20 * MIB)
    return Footprint("qwen2-vl", 32, (vision, language), 1050, 1000, 0.001)


@pytest.fixture
def model() -> ModelResult:
    halves = (
        HalfLoad("vision", 1.0, 10**9, 1_010_000_000, 2 * 10**9, 10**8),
        HalfLoad("language", 1.0, 3 * 10**9, 3_090_000_000, 4 * 10**9, 10**8),
    )
    answered = Outcome(1.0, (Answer("a b", 2, 1.0),))
    return ModelResult("qwen2-vl-2b", halves, answered, answered, {"vision": 1_400_000_000, "language": 1}, 1)


def full_report() -> Report:
    """A run of every workload that a bar asks for."""
    names = ("W1", "W1s", "W2", "W3", "W4", "W5", "W6", "W7", "W8-questions-64", "W8-questions-512")
    workloads = []
    for name in names:
        systems = {
            system: SystemResult([seconds], first_token_s=[[seconds, seconds]], equal=1, compared=1)
            for system, seconds in (
                ("transformers", 60.0),
                ("vllm", 6.0),
                ("lookonce-inprocess", 2.9),
                ("lookonce-http", 3.0 if name != "W1s" else 1.0),
            )
        }
        questions = {"W1": 32, "W1s": 8}.get(name, 64)
        workloads.append(WorkloadResult(name, 1, questions, 576, {"encode": 2.8}, {"encode": 1.0}, systems))
    return Report("full", {}, "a command", "qwen2-vl", 1, workloads)


def test_memory_is_held_against_interpreter_half_and_budget(held_memory: Footprint) -> None:
    """A worker's peak over what it must hold; keys and values over what a prefix and the tails need."""
    found = {bar.name.split()[0]: bar for bar in footprint.bars_of(held_memory)}
    assert found["vision"].found == pytest.approx(500 / 470)
    assert found["vision"].holds
    assert found["language"].found == pytest.approx(1000 / 850)
    assert not found["language"].holds
    assert found["KV"].found == pytest.approx(1.05)
    assert found["KV"].holds
    assert footprint.footprint_from_json(json.loads(json.dumps(asdict(held_memory)))) == held_memory
    assert "| language | 1000.0 | 900.0 | 350.0 | 480.0 | 20.0 | 1.18 |" in footprint.markdown(held_memory)


def test_an_interpreter_without_weights_is_measured() -> None:
    """A process with a worker's imports holds some hundred MB."""
    assert 50 * MIB < footprint.interpreter_bytes("vision", RECIPES["qwen2-vl-tiny"]) < 2000 * MIB


def test_real_shapes_have_bars_for_memory_and_disk(model: ModelResult) -> None:
    """The vision worker's peak beyond its weights, and what each half reads beyond its tensors."""
    found = real_shapes.bars_of([model])
    assert [bar.found for bar in found] == pytest.approx([0.4, 1.01, 1.03])
    assert [bar.holds for bar in found] == [True, True, False]
    assert "2 of 2 tokens are equal" in real_shapes.markdown([model])
    assert real_shapes.results_from_json(json.loads(json.dumps([asdict(model)]))) == [model]


def test_goodput_under_overload_has_a_bar() -> None:
    """The served system's, however others did."""
    [bar] = open_loop.bars_of({"vllm": 0.1, "lookonce-http": 0.95})
    assert bar.holds
    assert open_loop.bars_of({"vllm": 0.1}) == []


def test_the_summary_reads_every_kind_of_file(held_memory: Footprint, model: ModelResult, tmp_path: Path) -> None:
    """With one file of each kind no bar is missing; without a file its bars are named."""
    full_report().save(tmp_path)
    others = {
        "open-loop": {"curves": {}, "held": {"lookonce-http": 0.95}},
        "footprint": {"footprint": asdict(held_memory)},
        "real-shapes": {"models": [asdict(model)]},
        "another": {"something": 1},
    }
    for name, values in others.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    files = sorted(tmp_path.glob("*.json"))
    found = [bar for path in files for bar in summary.bars_of(path)]
    assert summary.missing(found) == []
    lacking = [bar for path in files if path.stem != "open-loop" for bar in summary.bars_of(path)]
    assert summary.missing(lacking) == ["W9, goodput"]


def test_the_summary_fails_where_a_bar_is_missed(
    held_memory: Footprint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its exit status is of use to a script, and it names what was not measured."""
    path = tmp_path / "footprint.json"
    path.write_text(json.dumps({"footprint": asdict(held_memory)}))
    assert summary.main([str(path)]) == 1
    assert "not measured" in capsys.readouterr().out
