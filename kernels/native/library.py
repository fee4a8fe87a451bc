"""The compiled library: built from `attention.c` beside it, and found by the source's digest, so never an older one."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("attention.c")
# The thread pool is torch's own: its libgomp is what the undefined names are found in when the library is loaded.
_COMPILE = ("-std=c11", "-O3", "-mavx512f", "-mfma", "-fopenmp", "-fPIC", "-c", str(SOURCE))
_COMPILE_S = 120.0


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it was not built, or this process cannot use it."""
    pool = _torch_threads()
    if pool is None or torch.backends.cpu.get_cpu_capability() != "AVX512" or not SOURCE.is_file():
        return None
    path = _path()
    if not path.is_file():
        return None
    try:
        ctypes.CDLL(str(pool), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except OSError:
        # Built for another C library or thread pool.
        return None


def build() -> Path | None:
    """Compiles the library, and returns it; None where that cannot be done here."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    path = _path()
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    part = path.with_suffix(f".{os.getpid()}.part")
    compiled = part.with_suffix(".o")
    try:
        for command in ((*_COMPILE, "-o", str(compiled)), ("-shared", str(compiled), "-o", str(part))):
            subprocess.run([compiler, *command], check=True, capture_output=True, timeout=_COMPILE_S)  # noqa: S603 - the compiler the builder names
        part.replace(path)
    except (OSError, subprocess.SubprocessError):
        return None
    finally:
        for left in (part, compiled):
            left.unlink(missing_ok=True)
    return path


def _path() -> Path:
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    return SOURCE.with_name(f"attention-{digest}.so")


def _torch_threads() -> Path | None:
    """The libgomp that torch's threads are in."""
    root = Path(torch.__file__).parent
    found = [path for folder in (root / "lib", root.parent / "torch.libs") for path in folder.glob("libgomp*.so*")]
    return found[0] if found else None
