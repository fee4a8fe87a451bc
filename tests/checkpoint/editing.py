"""Damaging checkpoints on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def rewrite(model_dir: Path, edit: Callable[[Tensors], Tensors], file_name: str = "model.safetensors") -> None:
    """Replace a file's tensors by what `edit` makes of them."""
    path = model_dir / file_name
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(edit(tensors), path, metadata={"format": "pt"})


def set_config(model_dir: Path, **values: Any) -> None:
    """Set top-level keys of config.json; None removes the key."""
    path = model_dir / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def shards_of(model_dir: Path, half: str) -> list[Path]:
    """The shards that hold tensors of one half, by the index."""
    weight_map = json.loads((model_dir / "model.safetensors.index.json").read_text())["weight_map"]
    is_vision = {name: name.startswith(("visual.", "model.visual.")) for name in weight_map}
    return sorted({model_dir / weight_map[name] for name in weight_map if is_vision[name] == (half == "vision")})


def flip_byte(path: Path, offset: int) -> None:
    """Change one bit of a file; its length and inode stay."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
