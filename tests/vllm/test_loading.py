"""What vLLM loads of a checkpoint."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.deployment import environment
from tests.families import make
from tests.vllm.conftest import START_S


@pytest.mark.timeout(START_S)
def test_no_tower_is_in_memory(vllm_python: Path, tmp_path: Path) -> None:
    """In the tower's place stands nothing, and no parameter is of the tower."""
    model = make("qwen2_5_vl", tmp_path / "model", wide_heads=True)
    told = subprocess.run(
        [vllm_python, "-m", "tests.vllm.loaded", str(model)],
        check=True,
        stdout=subprocess.PIPE,
        env=environment(),
        timeout=START_S,
    ).stdout.splitlines()
    found = json.loads(told[-1])
    assert found["tower"] == "StageMissingLayer"
    assert found["visual"] == []
    # Kernels for CPUs keep some weights in another form, beside the parameters.
    assert 0 < found["parameter_bytes"] <= found["half_bytes"]
