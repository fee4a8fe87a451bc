"""Generates the Python code of the contract; with `--check`, fails where the committed code is stale."""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def generate(out: Path) -> None:
    """Writes `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` for every proto of this folder into `out`.

    Raises:
        SystemExit: protoc refuses a file; it has printed why.
    """
    well_known = str(files("grpc_tools") / "_proto")
    sources = sorted(str(path) for path in HERE.glob("*.proto"))
    arguments = [f"-I{HERE}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise SystemExit("protoc failed")
    for path in out.glob("*_pb2_grpc.py"):
        absolute = re.sub(r"^import (\w+_pb2) as", r"from protos import \1 as", path.read_text(), flags=re.MULTILINE)
        path.write_text(absolute)


def stale() -> list[str]:
    """Names of the committed files that differ from what the protos generate now."""
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        return [path.name for path in Path(fresh).iterdir() if not same(path, HERE / path.name)]


def same(fresh: Path, committed: Path) -> bool:
    """Whether both files exist with the same text."""
    return committed.exists() and committed.read_text() == fresh.read_text()


if __name__ == "__main__":
    if "--check" in sys.argv:
        differing = stale()
        if differing:
            sys.exit(f"stale: {', '.join(sorted(differing))}. Run `make protos` and commit the result.")
    else:
        generate(HERE)
