"""Measured costs: curves between points, and files of them."""

import json
from pathlib import Path

import pytest

from planning.costs import Costs, Curve, UnusableCosts, read_costs


def costs(**changed: object) -> Costs:
    """Round numbers: an encoding takes 1 s, a prefix 0.5 s, a step of questions 0.1 s, one of decoding 0.01 s."""
    fields: dict[str, object] = {
        "name": "round",
        "encode": Curve(((100, 1.0),)),
        "prefill": Curve(((100, 0.5),)),
        "prompt": Curve(((1, 0.1), (1000, 0.1))),
        "decode": Curve(((1, 0.01), (1000, 0.01))),
        "store": Curve(((1, 0.0), (1e9, 0.0))),
        "request_s": 0.0,
        "entry_bytes_per_token": 1000,
        "kv_bytes_per_token": 1000,
    }
    return Costs(**fields | changed)  # type: ignore[arg-type]


def test_a_curve_goes_through_its_points() -> None:
    """Straight between them, on as between the last two, never below the first; one point is a proportion."""
    curve = Curve(((10, 1.0), (20, 3.0), (40, 4.0)))
    assert [curve(amount) for amount in (0, 10, 15, 20, 30, 40, 60)] == [1.0, 1.0, 2.0, 3.0, 3.5, 4.0, 5.0]
    assert Curve(((10, 1.0),))(25) == 2.5


@pytest.mark.parametrize("points", [(), ((2, 1.0), (1, 2.0)), ((1, 1.0), (1, 2.0)), ((1, -1.0),)])
def test_points_that_are_no_curve_are_refused(points: tuple[tuple[float, float], ...]) -> None:
    """Amounts ascend, and nothing takes less than no time."""
    with pytest.raises(UnusableCosts):
        Curve(points)


def test_costs_come_back_from_a_file(tmp_path: Path) -> None:
    """What is written is read."""
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(costs().to_json()))
    assert read_costs(path) == costs()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x", "encode": [[1]]}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """With its name."""
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(UnusableCosts, match=r"costs\.json"):
        read_costs(path)


def test_a_step_reads_the_weights_once() -> None:
    """Decoding, questions and a prefix in one step take less than apart, by a step of one sequence each."""
    assert costs().step_s(5, 50, 1.0, 100) == pytest.approx(0.01 + 0.1 + 0.5 - 2 * 0.01)
    assert costs().step_s(5, 0, 0.0, 100) == pytest.approx(0.01)
    assert costs().step_s(0, 0, 0.0, 100) == 0.0
