"""The benchmark of held answers, on a tiny checkpoint."""

import json
from pathlib import Path

from benchmarks import grammar
from benchmarks.grammar import FORMS, FREE, Result, Timing, markdown, over_free


def test_every_form_is_measured_beside_free_answers(tmp_path: Path) -> None:
    """Every form in every batch size is measured as often as free answers are, and tables and JSON are written."""
    arguments = ["--recipe", "qwen2-vl-tiny", "--batches", "1,2", "--tokens", "4", "--repeats", "2"]
    assert grammar.main([*arguments, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "grammar.json").read_text())
    measured = {(one["form"], one["batch"]) for one in found["timings"]}
    assert measured == {(form, batch) for form in (FREE, *FORMS) for batch in (1, 2)}
    assert all(len(one["step_s"]) == 2 for one in found["timings"])
    assert all((one["wait_s"] == [0.0, 0.0]) == (one["form"] == FREE) for one in found["timings"])
    assert set(found["mask_s"]) == set(FORMS)
    assert "over free" in (tmp_path / "grammar.md").read_text()


def test_forms_are_compared_with_free_answers_in_batches_of_the_same_size() -> None:
    """Twice the seconds of free answers are twice as much, whatever another size took."""
    timings = [
        Timing(FREE, 1, [0.1], [0.0]),
        Timing(FREE, 8, [9.0], [0.0]),
        Timing("regex", 1, [0.2, 0.2, 0.9], [0.001, 0.001, 0.5]),
    ]
    found = Result({"processor": "p", "cores": 2}, "command", "recipe", 100, 4, {"regex": 0.0005}, timings)
    assert over_free(found, timings[2]) == 2.0
    assert "| 1 | regex | 200.00 | 2.000 | 1.000 |" in markdown(found)
    assert "| regex | 0.500 |" in markdown(found)
