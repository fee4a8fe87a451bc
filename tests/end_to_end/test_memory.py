"""What a half costs beside the whole: peak resident memory and bytes read, of real processes."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import transformers

from tests.deployment import Deployment, Process, deploy, environment
from tests.end_to_end.asking import chat
from tests.families import make
from tests.lm_server.workshop import ask

pytestmark = pytest.mark.alone

# Loads the whole model as its users do, reads every weight, answers nothing, and tells what it took.
WHOLE = """
import json, resource, sys
import torch, transformers
model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.float32)
total = sum(float(p.sum()) for p in model.parameters())
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose language half, some 300 MB, outweighs the interpreter, with a small vision half."""
    model_dir = make("qwen2_vl", tmp_path_factory.mktemp("large") / "model")
    config = transformers.AutoConfig.from_pretrained(model_dir)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 1024, 4096, 5
    text.num_attention_heads, text.num_key_value_heads = 16, 4
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    config.vision_config.hidden_size = text.hidden_size
    torch.manual_seed(0)
    model = transformers.Qwen2VLForConditionalGeneration(config)
    (model_dir / "model.safetensors").unlink()
    model.save_pretrained(model_dir)
    return model_dir


def peak(process: Process) -> int:
    """The largest resident memory of a process, in bytes."""
    status = Path(f"/proc/{process.running.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def own_bytes(deployment: Deployment) -> tuple[int, int]:
    """Bytes of weights that each half read."""
    return deployment.vision_info().bytes_read, deployment.language_info().bytes_read


def test_a_vision_worker_takes_its_half_and_no_more(large: Path, tmp_path: Path) -> None:
    """The vision worker reads its own bytes alone, and its peak lies below the whole model's by the language half."""
    command = [sys.executable, "-c", WHOLE, str(large)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    whole_peak = json.loads(said.stdout.splitlines()[-1])["peak"]
    with deploy(large, "memory://", tmp_path, is_forked=False) as deployment:
        assert chat(deployment.http, ask("What is this?", 1), "model").num_tokens > 0
        vision_bytes, language_bytes = own_bytes(deployment)
        vision_peak = peak(deployment.vision[0])
        file_bytes = (large / "model.safetensors").stat().st_size
        assert language_bytes > 250 * MIB
        assert vision_bytes + language_bytes <= file_bytes
        # What the process itself read, imports and all, does not leave room for the language half.
        read = psutil.Process(deployment.vision[0].running.pid).io_counters().read_chars
        assert read < vision_bytes + 150 * MIB
        assert vision_peak < whole_peak - language_bytes // 2
