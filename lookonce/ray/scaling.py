"""How many replicas there should be, as Ray Serve's autoscaler asks: by what they have to do. Pure.

Serve counts the calls that go through it, and ours do not. So each replica tells what it has to do
(`record_autoscaling_stats`), Serve takes the mean over a while, asks this, and keeps to bounds and delays itself.
"""

from collections.abc import Mapping
from typing import Any, Protocol

# The name of the figure that each replica tells.
LOAD = "load"


class Config(Protocol):
    """What is used of Serve's AutoscalingConfig."""

    def get_target_ongoing_requests(self) -> float:
        """What one replica is meant to have to do."""


class Context(Protocol):
    """What is used of Serve's AutoscalingContext."""

    target_num_replicas: int
    config: Config

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """Figure → replica → its mean."""


def by_load(context: Context) -> tuple[float, dict[str, Any]]:
    """As many replicas as the load asks for; as many as there are to be already while none of them has told its own."""
    loads = (context.aggregated_metrics or {}).get(LOAD, {})
    if not loads:
        return context.target_num_replicas, {}
    return sum(loads.values()) / context.config.get_target_ongoing_requests(), {}
