"""What a run found is told completely, and read back as it was written."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.bars import bars
from benchmarks.comparing import compare
from benchmarks.plots import draw
from benchmarks.report import first_token_rows, markdown, print_report
from benchmarks.results import Report, SystemResult, WorkloadResult, load
from benchmarks.workload import Answer


@pytest.fixture
def report() -> Report:
    machine = {"cores": 2, "processor": "a processor", "memory_gib": 8.0, "commit": "abc", "versions": {"torch": "1"}}
    measured = {
        "transformers": SystemResult([60.0], time_s=[[1.0, 2.0]], tokens=32, memory={"whole": 3 << 20}),
        "vllm": SystemResult([6.0, 6.4, 6.2], equal=32, compared=32, compared_with="transformers"),
        "lookonce-http": SystemResult([4.0, 5.0, 4.5], equal=31, compared=32, compared_with="transformers", errors=1),
        "transformers-batch": SystemResult(skipped="it would take too long"),
    }
    w1 = WorkloadResult("W1", 1, 32, 576, {"encode": 1.0, "decode": 2.0}, {"encode": 200.0, "decode": 9.0}, measured)
    w3 = WorkloadResult("W3", 1, 2, 576, systems={"vllm": SystemResult([1.0], first_token_s=[[0.5, 0.1]])})
    grown = [
        WorkloadResult(f"W8-questions-{size}", 1, size, 576, systems={"vllm": SystemResult([size / 10])})
        for size in (1, 64)
    ]
    return Report("trial", machine, "a command", "qwen2-vl", 3, [w1, w3, *grown], {"linear": 100.0})


def test_a_report_is_read_as_it_was_written(report: Report, tmp_path: Path) -> None:
    """JSON keeps every number."""
    assert load(report.save(tmp_path)) == report


def test_the_table_tells_medians_spread_peers_and_limit(report: Report) -> None:
    """Each system's median stands beside the fastest peer's and the limit; failures and skipped systems are told."""
    text = markdown(report)
    assert "| W1 | lookonce-http | 4.500 | 4.000–5.000 | 1.38 | 67% | 31/32, 1 failed |" in text
    assert "| W1 | transformers-batch | – | it would take too long |" in text
    assert "| W1 | computed limit | 3.000 |" in text
    assert "| vllm | 500.0 | 100.0 |" in text
    assert "a processor" in text
    assert "a command" in text


def test_the_terminal_shows_every_system(report: Report) -> None:
    """The printed table has a row for each."""
    printed = StringIO()
    print_report(report, Console(file=printed, width=160))
    for name in report.workloads[0].systems:
        assert name in printed.getvalue()


def test_plots_are_drawn_for_what_there_is(report: Report, tmp_path: Path) -> None:
    """Bars of the workloads, and a curve for each axis of growth."""
    pytest.importorskip("matplotlib")
    names = [path.name for path in draw(report, tmp_path)]
    assert names == ["trial.png", "trial-growth-questions.png"]
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_ratios_are_taken_against_the_fastest_vllm(report: Report) -> None:
    """Where vLLM ran with other settings too, the bar is against whichever was faster."""
    report.workloads[0].systems["vllm:16384"] = SystemResult([5.0])
    assert next(bar for bar in bars(report) if bar.name.startswith("W1, vllm")).found == pytest.approx(5.0 / 4.5)
    report.workloads[0].systems["vllm:16384"] = SystemResult([9.0])
    assert next(bar for bar in bars(report) if bar.name.startswith("W1, vllm")).found == pytest.approx(6.2 / 4.5)


def test_first_tokens_are_set_beside_their_limit() -> None:
    """The first question waits for encoding and prefix, the second for its own rows alone."""
    measured = {"vllm": SystemResult([1.0], first_token_s=[[0.5, 0.1]])}
    result = WorkloadResult("W3", 1, 2, 576, systems=measured)
    assert first_token_rows(result) == [("vllm", "500.0", "100.0")]
    result.limit_s = {"encode": 0.2, "prefix": 0.1, "suffix": 0.04, "decode": 0.3}
    assert first_token_rows(result)[1] == ("computed limit", "320.0", "20.0")


def test_words_before_the_first_difference_are_counted() -> None:
    """Of two answers of three words, one agrees in all and one in the first."""
    reference = [Answer("a b c", 3, 1.0), Answer("a b c", 3, 1.0)]
    found = compare([Answer("a b c", 3, 1.0), Answer("a x c", 3, 1.0)], reference)
    assert (found.equal, found.agreeing_words, found.words) == (1, 4, 6)


def test_answers_are_equal_by_text_and_length() -> None:
    """A failed answer is not compared, a different one counted, and probabilities compared by their distance."""
    reference = [Answer("a", 2, 1.0), Answer("b", 2, 1.0), Answer("yes", 0, 1.0, None, (0.6, 0.4))]
    mine = [Answer("a", 3, 1.0), Answer("", 0, 1.0, error="busy"), Answer("yes", 0, 1.0, None, (0.5, 0.5))]
    found = compare(mine, reference)
    assert (found.equal, found.compared) == (1, 2)
    assert found.probability_difference == pytest.approx(0.1)
    assert compare(mine, reference, is_ending=True).equal == 2


def test_bars_are_worked_out_of_the_medians(report: Report) -> None:
    """Only those whose workloads were measured, each with the ratio that its target is of."""
    found = {bar.name: bar for bar in bars(report)}
    assert found["W1, vllm's time over ours"].found == pytest.approx(6.2 / 4.5)
    assert found["W1, vllm's time over ours"].holds
    assert found["W1, transformers' over ours"].found == pytest.approx(60 / 4.5)
    assert not found["W1, transformers' over ours"].holds
    assert found["W1, share of the limit"].found == pytest.approx(3 / 4.5)
    assert found["answers equal to the whole model's, of all ours"].found == pytest.approx(31 / 32)
    assert not found["questions of ours without an answer"].holds
    assert not any(name.startswith(("W2", "W5")) for name in found)
