"""How many replicas a load asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from lookonce.ray.scaling import by_load


@dataclass(frozen=True, slots=True)
class Config:
    """As Serve gives it."""

    target: float = 4.0

    def get_target_ongoing_requests(self) -> float:
        """What one replica is meant to have to do."""
        return self.target


@dataclass(slots=True)
class Context:
    """As Serve gives it."""

    aggregated_metrics: Mapping[str, Mapping[str, float]] | None
    target_num_replicas: int = 2
    config: Config = field(default_factory=Config)


@pytest.mark.parametrize(("loads", "wanted"), [((12.0,), 3.0), ((4.0, 4.0), 2.0), ((1.0, 0.0, 0.0), 0.25)])
def test_the_load_of_all_is_shared(loads: tuple[float, ...], wanted: float) -> None:
    """As many replicas as the sum asks for at so much each; Serve rounds and bounds it."""
    told = {"load": {str(number): load for number, load in enumerate(loads)}}
    assert by_load(Context(told)) == (wanted, {})


@pytest.mark.parametrize("told", [None, {}, {"load": {}}, {"other": {"0": 9.0}}])
def test_without_a_figure_nothing_changes(told: Mapping[str, Mapping[str, float]] | None) -> None:
    """Replicas that have told nothing yet are not taken for idle ones."""
    assert by_load(Context(told)) == (2, {})
