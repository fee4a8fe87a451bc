"""The benchmark of a GPU refuses where there is none, and plans the same wherever it is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.errors import NoDevice, NoVllm, UnknownName
from benchmarks.systems.deployment import Deployment
from benchmarks.systems.registry import VLLM_PYTHON, check_names, open_system
from benchmarks.systems.system import Place
from benchmarks.systems.whole import WholeModel
from benchmarks.workload import Question
from benchmarks.workloads import TINY


def options(*more: str) -> gpu.argparse.Namespace:
    return gpu._parser().parse_args(["--recipe", "qwen2-vl-tiny", "--tiny", *more])


def test_without_its_device_nothing_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1, and the message says what is missing."""
    assert gpu.main(["--device", "cuda:99"]) == 1
    assert "'cuda:99' is not there" in capsys.readouterr().err
    with pytest.raises(NoDevice):
        gpu.check_device("cuda:99")
    gpu.check_device("cpu")


def test_the_plan_is_for_the_device_and_dtype(tmp_path: Path) -> None:
    """Every workload but those with commands of their own, on the place that was asked for."""
    plan = gpu.plan_of(options("--device", "cpu", "--dtype", "float32", "--repeats", "2"), ["W1", "W8"], tmp_path)
    assert (plan.place.device, plan.place.dtype, plan.scale) == ("cpu", "float32", TINY)
    assert plan.workloads[0] == "W1"
    assert "W8-questions-512" in plan.workloads
    assert plan.whole_repeats == plan.repeats == 2
    assert gpu.open_loop_setting(options("--device", "cpu")).place.dtype == "bfloat16"


def test_by_default_all_ten_are_planned() -> None:
    """W1 to W8 in one run, W9 and W10 after it, at a 2B model's shapes in bf16."""
    found = gpu._parser().parse_args([])
    names = found.workloads.split(",")
    assert {"W9", "W10"} <= set(names)
    bursts = [name for name in names if name not in ("W9", "W10")]
    planned = gpu.plan_of(found, bursts, Path()).workloads
    assert {"W1", "W1s", "W2", "W3", "W4", "W5", "W6", "W7", "W8-tokens-4096"} <= set(planned)
    assert (found.recipe, found.dtype, found.device) == ("qwen2-vl-2b", "bfloat16", "cuda")


def test_workers_are_told_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves get the device and the dtype as flags."""
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(Deployment, "_start_store", lambda self: "memory://")
    monkeypatch.setattr(Deployment, "_spawn", lambda self, name: commands.append(self._commands[name][0]))
    monkeypatch.setattr(Deployment, "_wait", lambda self, condition, what: None)
    Deployment(with_gateways=True, place=Place("cuda:0", "bfloat16", 4)).start(tmp_path, None, 1)
    halves = [command for command in commands if "gateway" not in command]
    assert len(halves) == 2
    for command in halves:
        assert command[command.index("--device") + 1] == "cuda:0"
        assert command[command.index("--dtype") + 1] == "bfloat16"
        assert command[command.index("--threads") + 1] == "4"


def test_the_whole_model_is_loaded_in_the_dtype(tiny_checkpoint: Path) -> None:
    """And its inputs with it."""
    whole = WholeModel(tiny_checkpoint, "cpu", "bfloat16")
    from PIL import Image

    inputs = whole.inputs([Question(0, "What is here?")], [Image.new("RGB", (56, 56))])
    assert whole.model.dtype is inputs["pixel_values"].dtype is torch.bfloat16


def test_vllm_takes_other_settings_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`vllm:TOKENS` is a system; other words behind the colon are not, and on a GPU there is none here."""
    check_names(["vllm", "vllm:16384"])
    with pytest.raises(UnknownName):
        check_names(["vllm:much"])
    monkeypatch.setattr(type(VLLM_PYTHON), "exists", lambda self: True)
    assert open_system("vllm:16384").name == "vllm:16384"
    with pytest.raises(NoVllm, match="CPU"):
        open_system("vllm", Place("cuda"))
