"""The compiled libraries: built from the C beside them, and found by the sources' digest, so never older ones.

There is one for each kind of processor that it is worth while for, and all are built wherever one is: what is built in
one place may run in another.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent
SOURCES = tuple(_FOLDER / name for name in ("attention.c", "linear.c", "norm.c"))
_READ = (*SOURCES, _FOLDER / "lanes.h")
# The thread pool is torch's own: its libgomp is what the undefined names are found in when the library is loaded.
_COMPILE = ("-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-fPIC", "-c")
_COMPILE_S = 120.0
# By torch's name of what the processor can do.
_PROCESSORS = {"AVX512": ("-mavx512f", "-mfma"), "AVX2": ("-mavx2", "-mfma")}


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it was not built, or this process cannot use it."""
    pool, path = _torch_threads(), _path(torch.backends.cpu.get_cpu_capability())
    if pool is None or not path.is_file():
        return None
    try:
        ctypes.CDLL(str(pool), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except OSError:
        # Built for another C library or thread pool.
        return None


def build() -> list[Path]:
    """Compiles the libraries, and returns them; none where that cannot be done here."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sys.platform.startswith("linux"):
        return []
    try:
        return [_compile(compiler, _path(processor), flags) for processor, flags in _PROCESSORS.items()]
    except (OSError, subprocess.SubprocessError):
        return []


def _compile(compiler: str, path: Path, flags: Sequence[str]) -> Path:
    part = path.with_suffix(f".{os.getpid()}.part")
    compiled = {source: part.with_suffix(f".{source.stem}.o") for source in SOURCES}
    commands = [(*_COMPILE, *flags, str(source), "-o", str(to)) for source, to in compiled.items()]
    commands.append(("-shared", *map(str, compiled.values()), "-o", str(part)))
    try:
        for command in commands:
            subprocess.run([compiler, *command], check=True, capture_output=True, timeout=_COMPILE_S)  # noqa: S603 - the compiler the builder names
        part.replace(path)
    finally:
        for left in (part, *compiled.values()):
            left.unlink(missing_ok=True)
    return path


def _path(processor: str) -> Path:
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in _READ)).hexdigest()[:16]
    return _FOLDER / f"native-{digest}-{processor.lower()}.so"


def _torch_threads() -> Path | None:
    """The libgomp that torch's threads are in."""
    root = Path(torch.__file__).parent
    found = [path for folder in (root / "lib", root.parent / "torch.libs") for path in folder.glob("libgomp*.so*")]
    return found[0] if found else None
