"""What is said to torch's threads before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lookonce.barriers import spin_briefly


def test_users_decide() -> None:
    """What is set already stays."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        environment = {name: "7"}
        spin_briefly(environment)
        assert environment == {name: "7"}


@pytest.mark.parametrize("half", ["vision", "language"])
def test_workers_threads_sleep_early(half: str, tmp_path: Path) -> None:
    """A worker's own libgomp has been told, although it was loaded after the command had begun."""
    (tmp_path / "config.json").write_text("{}")
    command = [sys.executable, "-m", "lookonce", half, "--model", str(tmp_path), "--listen", "127.0.0.1:0"]
    command += ["--cache", "memory://"] + (["--vision", "127.0.0.1:1"] if half == "language" else [])
    inherited = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**inherited, "OMP_DISPLAY_ENV": "VERBOSE"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert "GOMP_SPINCOUNT = '5000'" in found.stderr
