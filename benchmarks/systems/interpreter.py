"""Memory of a process that has imported what a measured one imports and holds no weights.

`python -m benchmarks.systems.interpreter ROLE CLASS`, ROLE being vision, language or whole, and CLASS transformers'
class of the whole model, whose module transformers imports only when it is asked for.
"""

import importlib
import os
import sys

from benchmarks.systems.memory import resident_bytes

# What each process runs, by its role.
MAIN = {
    "vision": ("lookonce.cli", "vision_server.main"),
    "language": ("lookonce.cli", "lm_server.main"),
    "whole": ("benchmarks.systems.host", "benchmarks.systems.whole"),
}


def main(role: str, architecture: str) -> None:
    """Prints the bytes."""
    for name in MAIN[role]:
        importlib.import_module(name)
    getattr(importlib.import_module("transformers"), architecture)
    print(resident_bytes(os.getpid()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
