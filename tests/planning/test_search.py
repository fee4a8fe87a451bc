"""The cheapest fleet: it keeps the promise, and a smaller one does not."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from lookonce.cli import app
from planning import search
from planning.costs import Costs
from planning.fleet import Fleet, Report, Served
from planning.search import NoFleet, Wish, cheapest, keeps, with_deaths
from planning.traffic import Traffic
from planning.workers import Counts
from tests.planning.test_costs import costs

TRAFFIC = Traffic(rate=4.0, questions=2, image_tokens=100, question_tokens=10, answer_tokens=5)
WISH = Wish(first_token_s=3.0)


def test_the_cheapest_keeps_the_promise_and_a_smaller_does_not() -> None:
    """One worker fewer of either half breaks it."""
    found = cheapest(costs(), TRAFFIC, WISH)
    assert keeps(found, WISH)
    for half in ("vision", "language"):
        count = getattr(found.fleet, half)
        if count > 1:
            smaller = replace(found.fleet, **{half: count - 1})
            assert not keeps(with_deaths(costs(), TRAFFIC, smaller, 0.0), WISH)


def test_a_large_fleet_is_found_in_few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of workers only some numbers are tried, and those are found that the promise needs, no more."""
    runs: list[Fleet] = []

    def needing(costs: Costs, traffic: Traffic, fleet: Fleet, part: float) -> Report:
        runs.append(fleet)
        is_kept = fleet.vision >= 164 and fleet.language >= 47
        counts = Counts(busy_vision_s=10.0, busy_language_s=10.0)
        return Report([Served(0.0, 1.0 if is_kept else 9.0, 9.0)], 1.0, counts, fleet)

    monkeypatch.setattr(search, "with_deaths", needing)
    found = cheapest(costs(), TRAFFIC, WISH).fleet
    assert (found.vision, found.language) == (164, 47)
    assert len(runs) < 70


def test_one_more_of_a_half_that_saves_two_of_the_other_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven and ten cost 17 and keep the promise, of each no fewer; eight and eight cost 16 and keep it too."""

    def needing(costs: Costs, traffic: Traffic, fleet: Fleet, part: float) -> Report:
        is_kept = fleet.vision >= 7 and fleet.language >= (10 if fleet.vision == 7 else 8)
        counts = Counts(busy_vision_s=10.0, busy_language_s=20.0)
        return Report([Served(0.0, 1.0 if is_kept else 9.0, 9.0)], 1000.0, counts, fleet)

    monkeypatch.setattr(search, "with_deaths", needing)
    monkeypatch.setattr(search, "_least", lambda *_: Fleet(7, 1))
    found = cheapest(costs(), TRAFFIC, WISH).fleet
    assert (found.vision, found.language) == (8, 8)


def test_more_traffic_needs_more_and_repeated_images_less() -> None:
    """Twice the rate takes more workers; images that come back take fewer towers."""
    found = cheapest(costs(), TRAFFIC, WISH).fleet
    twice = cheapest(costs(), replace(TRAFFIC, rate=8.0), WISH).fleet
    again = cheapest(costs(), replace(TRAFFIC, num_images=20), WISH).fleet
    assert twice.vision + twice.language > found.vision + found.language
    assert again.vision < found.vision


def test_bearing_deaths_costs_something() -> None:
    """A fleet that keeps its promise while a tenth of it dies is no smaller."""
    plain = cheapest(costs(), TRAFFIC, WISH)
    robust = cheapest(costs(), TRAFFIC, WISH, 0.1)
    assert WISH.price(robust.fleet) >= WISH.price(plain.fleet)
    assert keeps(robust, WISH)


def test_what_no_fleet_can_is_refused() -> None:
    """A first token sooner than an encoding takes."""
    with pytest.raises(NoFleet, match="even alone"):
        cheapest(costs(), TRAFFIC, Wish(first_token_s=1.0))


def test_the_command_prints_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shipped costs: workers, price, first tokens, hit rates, and what becomes of it when a tenth die."""
    monkeypatch.setenv("COLUMNS", "160")
    words = ["plan", "--rate", "0.5", "--questions-per-image", "4", "--slo", "4", "--images", "50"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for told in ("vision workers", "language workers", "first token, p95 (wanted: 4.0 s)", "10% die", "affinity"):
        assert told in result.output
