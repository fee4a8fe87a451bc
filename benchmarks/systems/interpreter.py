"""Memory of an interpreter with what a process like the measured one cannot do without, and no weights.

That is numpy, torch, safetensors and transformers' class of the whole model, which brings much of transformers and of
torch's compiler with it whoever imports it; for a worker also grpcio and redis. Nothing of this project is in it: what
its own modules import beyond that counts against it.

`python -m benchmarks.systems.interpreter ROLE CLASS`, ROLE being vision, language or whole.
"""

import importlib
import os
import sys

from benchmarks.systems.memory import resident_bytes

_MODEL = ("numpy", "torch", "safetensors.torch")
_WORKER = (*_MODEL, "grpc.aio", "redis.asyncio")
NEEDED = {"vision": _WORKER, "language": _WORKER, "whole": _MODEL}


def main(role: str, architecture: str) -> None:
    """Prints the bytes."""
    for name in NEEDED[role]:
        importlib.import_module(name)
    getattr(importlib.import_module("transformers"), architecture)
    print(resident_bytes(os.getpid()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
