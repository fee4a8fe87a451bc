"""The classic faults of checkpoints, each made on purpose, by the heading that docs/troubleshooting.md has for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests import families
from tests.checkpoint.editing import Tensors, rewrite, set_config, shards_of

QKV = "visual.blocks.0.attn.qkv.weight"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
NAME = "my-model"


RANDOM = "warns; random values"
LEFT_OUT = "warns; left out"
SILENT = "says nothing"


@dataclass(frozen=True, slots=True)
class ClassicFault:
    """How a sound checkpoint comes to have the fault, and which half is then loaded.

    Attributes:
        elsewhere: What transformers' from_pretrained makes of it; "" where that hangs on what is installed or reached.
    """

    damage: Callable[[Path], object]
    elsewhere: str
    half: str = "language"
    sharded: bool = False


def make(fault: ClassicFault, directory: Path) -> Path:
    """A checkpoint with the fault: an untied Qwen2.5-VL, tiny and random."""
    model_dir = families.make("qwen2_5_vl", directory / NAME, sharded=fault.sharded)
    fault.damage(model_dir)
    return model_dir


def _without(name: str) -> Callable[[Path], None]:
    return lambda path: rewrite(path, lambda tensors: {key: t for key, t in tensors.items() if key != name})


def _replaced(name: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return lambda path: rewrite(path, lambda tensors: tensors | {name: edit(tensors[name])})


def _added(name: str) -> Callable[[Path], None]:
    return lambda path: rewrite(path, lambda tensors: tensors | {name: torch.zeros(2)})


def _renamed(prefix: str) -> Callable[[Path], None]:
    def renamed(tensors: Tensors) -> Tensors:
        return {prefix + name: tensor for name, tensor in tensors.items()}

    return lambda path: rewrite(path, renamed)


def _with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = float("nan")
    return tensor


def _as_adapter(model_dir: Path) -> None:
    """What PEFT's save_pretrained leaves: an adapter's two files and no model."""
    for path in model_dir.iterdir():
        path.unlink()
    config = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct", "r": 8}
    (model_dir / "adapter_config.json").write_text(json.dumps(config))
    (model_dir / "adapter_model.safetensors").write_bytes(b"")


def _without_tokenizer(model_dir: Path) -> None:
    for path in (*model_dir.glob("*token*"), *model_dir.glob("vocab.json"), *model_dir.glob("merges.txt")):
        path.unlink()


def _cut_short(model_dir: Path) -> None:
    shard = shards_of(model_dir, "vision")[0]
    shard.write_bytes(shard.read_bytes()[:200])


def _as_pickle(model_dir: Path) -> None:
    """A file that a pickle would have the name of; what is in it is never looked at."""
    (model_dir / "model.safetensors").rename(model_dir / "pytorch_model.bin")


def _as_integers(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.int8)


FAULTS: dict[str, ClassicFault] = {
    "A tensor is missing": ClassicFault(_without(QKV), RANDOM, "vision"),
    "The head is absent": ClassicFault(_without("lm_head.weight"), RANDOM),
    "Names begin with module.": ClassicFault(_renamed("module."), RANDOM, "vision"),
    "Names begin with _orig_mod.": ClassicFault(_renamed("_orig_mod."), RANDOM, "vision"),
    "A tensor is not the model's": ClassicFault(_added("model.layers.9.mlp.up_proj.weight"), LEFT_OUT),
    "Values are NaN or infinite": ClassicFault(_replaced(Q_PROJ, _with_nan), SILENT),
    "Integers where floats should be": ClassicFault(_replaced(QKV, _as_integers), SILENT, "vision"),
    "There is no tokenizer": ClassicFault(_without_tokenizer, SILENT),
    "A tensor has the wrong shape": ClassicFault(
        _replaced(Q_PROJ, lambda t: t[:-1].contiguous()), "raises RuntimeError"
    ),
    "Tensors have shape [0]": ClassicFault(_replaced(QKV, lambda _: torch.zeros(0)), "raises RuntimeError", "vision"),
    "A shard is absent": ClassicFault(
        lambda path: shards_of(path, "vision")[0].unlink(), "raises FileNotFoundError", "vision", sharded=True
    ),
    "A shard is cut short": ClassicFault(_cut_short, "raises SafetensorError", "vision", sharded=True),
    "An adapter is given as the model": ClassicFault(_as_adapter, ""),
    "The checkpoint is quantised": ClassicFault(
        lambda path: set_config(path, quantization_config={"quant_method": "awq", "bits": 4}), ""
    ),
    "The model is of another family": ClassicFault(lambda path: set_config(path, model_type="llava"), ""),
    "The weights are pickles": ClassicFault(_as_pickle, ""),
}
