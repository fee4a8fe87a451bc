"""How a fleet would do: a discrete-event model with measured costs, and the search for the cheapest one.

Nothing here serves anything: no torch, no sockets.
"""

from pathlib import Path

# Costs of the benchmarks' Qwen2-VL (152 M parameters, float32) on two CPU cores, as `benchmarks.costs` measured them.
COSTS = Path(__file__).with_name("costs.json")
