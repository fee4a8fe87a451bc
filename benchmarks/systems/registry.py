"""The measured systems by name."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.errors import NoVllm, UnknownName
from benchmarks.systems.hosted import ROOT, Hosted
from benchmarks.systems.over_grpc import OverGrpc
from benchmarks.systems.over_http import OverHttp
from benchmarks.systems.system import System

VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
REFERENCE = "transformers"
# Libraries that vLLM's guide for CPUs wants loaded before anything else.
_LIBRARIES = ("/usr/lib/*/libtcmalloc_minimal.so.4", f"{VLLM_PYTHON.parent.parent.relative_to('/')}/lib/libiomp5.so")


def _vllm() -> System:
    if not VLLM_PYTHON.exists():
        raise NoVllm("vLLM's environment is not there: run `make bench-vllm`")
    found = [str(path) for pattern in _LIBRARIES for path in Path("/").glob(pattern.removeprefix("/"))]
    environment = {"LD_PRELOAD": os.pathsep.join(found), "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
    return Hosted("vllm", "benchmarks.systems.vllm_worker", VLLM_PYTHON, environment)


SYSTEMS: Mapping[str, Callable[[], System]] = {
    REFERENCE: lambda: Hosted(REFERENCE, "benchmarks.systems.whole"),
    "transformers-batch": lambda: Hosted("transformers-batch", "benchmarks.systems.static_batch"),
    "vllm": _vllm,
    "lookonce-inprocess": lambda: Hosted("lookonce-inprocess", "benchmarks.systems.in_process"),
    "lookonce-grpc": OverGrpc,
    "lookonce-http": OverHttp,
}


def present() -> tuple[str, ...]:
    """Systems that can be started here."""
    return tuple(name for name in SYSTEMS if name != "vllm" or VLLM_PYTHON.exists())


def open_system(name: str) -> System:
    """The system of this name, not yet started. Raises `UnknownName`, `NoVllm`."""
    if name not in SYSTEMS:
        raise UnknownName(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]()


def check_names(names: Iterable[str]) -> None:
    """Raises `UnknownName` for what is no system."""
    for name in names:
        if name not in SYSTEMS:
            raise UnknownName(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}")
