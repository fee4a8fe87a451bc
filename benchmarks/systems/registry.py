"""The measured systems by name."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.errors import NoVllm, UnknownName
from benchmarks.systems.hosted import ROOT, Hosted
from benchmarks.systems.over_grpc import OverGrpc
from benchmarks.systems.over_http import OverHttp
from benchmarks.systems.system import CPU, Place, System
from benchmarks.systems.vllm_worker import BATCHED_TOKENS
from lookonce.barriers import spin_briefly

VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
REFERENCE = "transformers"
PEER = "vllm"
IN_PROCESS = "lookonce-inprocess"
OVER_HTTP = "lookonce-http"
# The same with one gateway; other than `lookonce-http` where there are several language workers.
ROUTED = "lookonce-routed"
# The same with a disk below the memory for keys and values; other than `lookonce-http` where that is small.
ON_DISK = "lookonce-disk"
# `vllm:16384` is vLLM with steps of up to so many rows, beside `vllm` with those of its own default.
_TUNED = f"{PEER}:"
# Libraries that vLLM's guide for CPUs wants loaded before anything else.
_LIBRARIES = ("/usr/lib/*/libtcmalloc_minimal.so.4", f"{VLLM_PYTHON.parent.parent.relative_to('/')}/lib/libiomp5.so")


def _hosted(name: str, module: str) -> Callable[[Place], System]:
    return lambda place: Hosted(name, f"benchmarks.systems.{module}", place=place)


def own_engine(name: str, module: str, place: Place) -> Hosted:
    """Our engine in the process of a `Hosted`, with its threads told what a worker's are told."""
    environment: dict[str, str] = {}
    spin_briefly(environment)
    return Hosted(name, module, environment=environment, place=place)


def _vllm(place: Place, batched_tokens: int | None = None) -> System:
    if not VLLM_PYTHON.exists():
        raise NoVllm("vLLM's environment is not there: run `make bench-vllm`")
    if place.device != "cpu":
        raise NoVllm("vLLM's environment here is that of its CPU build")
    found = [str(path) for pattern in _LIBRARIES for path in Path("/").glob(pattern.removeprefix("/"))]
    environment = {"LD_PRELOAD": os.pathsep.join(found), "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
    if batched_tokens is not None:
        environment[BATCHED_TOKENS] = str(batched_tokens)
    name = PEER if batched_tokens is None else f"{_TUNED}{batched_tokens}"
    return Hosted(name, "benchmarks.systems.vllm_worker", VLLM_PYTHON, environment, place, restarts_process=True)


SYSTEMS: Mapping[str, Callable[[Place], System]] = {
    REFERENCE: _hosted(REFERENCE, "whole"),
    "transformers-batch": _hosted("transformers-batch", "static_batch"),
    PEER: _vllm,
    IN_PROCESS: lambda place: own_engine(IN_PROCESS, "benchmarks.systems.in_process", place),
    "lookonce-grpc": OverGrpc,
    OVER_HTTP: OverHttp,
    ROUTED: lambda place: OverHttp(place, ROUTED, is_routed=True),
    ON_DISK: lambda place: OverHttp(place, ON_DISK, has_disk=True),
}


def present() -> tuple[str, ...]:
    """Systems that can be started here."""
    return tuple(name for name in SYSTEMS if name != PEER or VLLM_PYTHON.exists())


def open_system(name: str, place: Place = CPU) -> System:
    """The system of this name, not yet started. Raises `UnknownName`, `NoVllm`."""
    check_names([name])
    if name.startswith(_TUNED):
        return _vllm(place, int(name.removeprefix(_TUNED)))
    return SYSTEMS[name](place)


def check_names(names: Iterable[str]) -> None:
    """Raises `UnknownName` for what is no system."""
    for name in names:
        if name not in SYSTEMS and not (name.startswith(_TUNED) and name.removeprefix(_TUNED).isdecimal()):
            raise UnknownName(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}, and {_TUNED}TOKENS")
