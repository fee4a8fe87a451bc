"""How long torch's threads look for each other before they sleep. To be said before torch is loaded."""

import os
from collections.abc import MutableMapping

_VARIABLE = "GOMP_SPINCOUNT"
# About 0.1 ms, longer than what lies between the operators of a step. libgomp's own 300,000 is fine as long as nothing
# else wants the cores; else whoever spins has the core that the awaited thread needs, and a step takes ten times as
# long.
_SPINS = "5000"
# What users set to decide this themselves.
_DECIDED = (_VARIABLE, "OMP_WAIT_POLICY")


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has libgomp's threads sleep early, in this process or in one that is started with `environment`."""
    if not any(name in environment for name in _DECIDED):
        environment[_VARIABLE] = _SPINS
