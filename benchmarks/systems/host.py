"""The worker process of a hosted system: `python -m benchmarks.systems.host MODULE[:CLASS]`, by default `Worker`.

Reads orders as JSON lines and answers each with one line. Whatever libraries print goes to standard error.
"""

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.systems.system import Setup
from benchmarks.workload import Outcome, Workload, workload_from_json


class Worker(Protocol):
    """What a hosted system's class offers."""

    def start(self, setup: Setup) -> None:
        """Loads the model."""

    def run(self, workload: Workload, paths: Sequence[str]) -> Outcome:
        """Answers; `paths` are the pictures' files."""

    def restart(self) -> None:
        """Forgets what a restart loses. Not called where a restart is a new process."""


def main(where: str) -> None:
    """Serves until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, _, name = where.partition(":")
    worker: Worker = getattr(importlib.import_module(module), name or "Worker")()
    for line in sys.stdin:
        try:
            reply = _obey(worker, json.loads(line))
        except Exception as exc:  # noqa: BLE001 - the measuring process tells it
            traceback.print_exc()
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _obey(worker: Worker, message: dict[str, Any]) -> dict[str, Any]:
    order = message.pop("order")
    if order == "run":
        gc.collect()
        return worker.run(workload_from_json(message["workload"]), message["paths"]).to_json()
    if order == "start":
        worker.start(Setup(**{**message, "cores": tuple(message["cores"])}))
    elif order == "restart":
        worker.restart()
    return {}


if __name__ == "__main__":
    main(sys.argv[1])
