"""A system that lives in a worker process of its own: JSON lines to its standard input, JSON lines back.

So that every system has its own interpreter, threads and memory, and vLLM its own virtual environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import SystemFailed
from benchmarks.pictures import picture_path
from benchmarks.systems.memory import memory_of
from benchmarks.systems.system import CPU, Place, ProcessMemory
from benchmarks.workload import Outcome, Workload, outcome_from_json

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 30.0


class Hosted:
    """A `System` in worker processes, one a door. `module` is `MODULE[:CLASS]`, by default `Worker`; `python` runs it.

    Where `restarts_process`, a restart is a new process, else the worker forgets what a restart loses.
    """

    def __init__(
        self,
        name: str,
        module: str,
        python: Path = Path(sys.executable),
        environment: Mapping[str, str] | None = None,
        place: Place = CPU,
        *,
        restarts_process: bool = False,
    ) -> None:
        self.name = name
        self._place = place
        self._restarts_process = restarts_process
        self._module = module
        self._python = python
        self._environment = dict(environment or {})
        self._workers: list[_Worker] = []
        self._started: tuple[Path, int | None, int] = (Path(), None, 1)

    def start(self, checkpoint: Path, kv_tokens: int | None = None, doors: int = 1) -> None:
        """Starts the workers; with several, the cores are divided among them."""
        self._started = (checkpoint, kv_tokens, doors)
        threads = max(self._place.threads // doors, 1)
        for door in range(doors):
            worker = _Worker(self.name, self._command(), self._surroundings(threads), self._log())
            self._workers.append(worker)
            worker.send(
                "start",
                checkpoint=str(checkpoint),
                kv_tokens=kv_tokens,
                cores=list(range(door * threads, (door + 1) * threads)),
                device=self._place.device,
                dtype=self._place.dtype,
            )
        for worker in self._workers:
            worker.receive()

    def run(self, workload: Workload) -> Outcome:
        """Each worker answers the questions of its door, at the same time."""
        paths = [str(picture_path(picture)) for picture in workload.pictures]
        parts = [workload.only_door(door) for door in range(len(self._workers))]
        for worker, part in zip(self._workers, parts, strict=True):
            worker.send("run", workload=part.to_json(), paths=paths)
        outcomes = [outcome_from_json(worker.receive()) for worker in self._workers]
        answers = [iter(outcome.answers) for outcome in outcomes]
        in_order = tuple(next(answers[question.door]) for question in workload.questions)
        return Outcome(max(outcome.seconds for outcome in outcomes), in_order)

    def restart(self) -> None:
        """In place, or by starting the workers again."""
        if self._restarts_process:
            self.stop()
            self.start(*self._started)
            return
        for worker in self._workers:
            worker.send("restart")
        for worker in self._workers:
            worker.receive()

    def memory(self) -> Sequence[ProcessMemory]:
        """The workers' and their children's."""
        return [memory for worker in self._workers for memory in memory_of("whole", worker.pid, self._place)]

    def stop(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _command(self) -> list[str]:
        return [str(self._python), "-m", "benchmarks.systems.host", self._module]

    def _surroundings(self, threads: int) -> dict[str, str]:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths, **self._environment}

    def _log(self) -> Path:
        directory = ROOT / ".cache" / "bench-logs"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{self.name}-{len(self._workers)}.log"


class _Worker:
    """One worker process."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - the project's own worker
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=dict(environment), text=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: str, **arguments: Any) -> None:
        """Gives an order; `receive` waits for its reply."""
        if self._process.stdin is None or self._process.poll() is not None:
            raise self._failure("it has ended")
        self._process.stdin.write(json.dumps({"order": order, **arguments}) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The reply. Raises `SystemFailed` with the worker's last lines where there is none."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise self._failure(f"it ended with {self._process.wait(STOP_S)}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise self._failure(reply["error"])
        return reply

    def _failure(self, why: str) -> SystemFailed:
        lines = self._log.read_text(errors="replace").splitlines()[-30:]
        return SystemFailed(f"{self._name}: {why}\n" + "\n".join(lines))

    def end(self) -> None:
        """Closes its input, which ends it; kills it where that takes too long."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
