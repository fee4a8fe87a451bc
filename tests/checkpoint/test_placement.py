"""The language half spread by accelerate answers as it does in one place."""

from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoint
from tests import families

LAYER_1 = "model.language_model.layers.1"
PARTS = ("embed_tokens", "layers.0", "layers.1", "layers.2", "norm", "rotary_emb")


def _map(**elsewhere: str) -> dict[str, str]:
    places = {f"model.language_model.{part}": "cpu" for part in PARTS} | {"lm_head": "cpu"}
    return places | {name.replace("__", "."): place for name, place in elsewhere.items()}


def _answer(model: Any) -> list[int]:
    ids = torch.arange(5, 25)[None]
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    tokens: list[int] = output[0].tolist()
    return tokens


@pytest.fixture
def expected(whole: Path) -> list[int]:
    return _answer(checkpoint.load_language(whole).model)


@pytest.mark.parametrize("device_map", [{"": "cpu"}, "auto", "sequential"])
def test_a_device_map_on_one_host_answers_the_same(whole: Path, expected: list[int], device_map: Any) -> None:
    """A map of one device, and accelerate's own choice where there is only a CPU."""
    model = checkpoint.load_language(whole, device_map=device_map).model
    assert _answer(model) == expected


def test_layers_on_disk_answer_the_same(whole: Path, expected: list[int], tmp_path: Path) -> None:
    """A layer sent to disk is written to the folder, stays out of memory, and still takes part."""
    folder = tmp_path / "offload"
    loaded = checkpoint.load_language(whole, device_map=_map(**{LAYER_1: "disk"}), offload_folder=folder)
    on_meta = {name for name, p in loaded.model.named_parameters() if p.device.type == "meta"}
    assert on_meta == {name for name, _ in loaded.model.named_parameters() if name.startswith(LAYER_1)}
    assert len(list(folder.glob("*.dat"))) == len(on_meta)
    assert _answer(loaded.model) == expected
    assert _answer(loaded.model) == expected


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("on_disk", [{"lm_head"}, {"model.language_model.embed_tokens"}, {""}])
def test_an_embedding_or_head_on_disk_answers_the_same(tmp_path: Path, tied: bool, on_disk: set[str]) -> None:
    """A tied pair may be parted by the map: each then has the same values where it lives."""
    model_dir = families.make("qwen3_vl", tmp_path / "model", tied=tied)
    expected = _answer(checkpoint.load_language(model_dir).model)
    device_map = dict.fromkeys(on_disk, "disk") if "" in on_disk else _map(**dict.fromkeys(on_disk, "disk"))
    loaded = checkpoint.load_language(model_dir, device_map=device_map, offload_folder=tmp_path / "offload")
    assert _answer(loaded.model) == expected


def test_bfloat16_on_disk_answers_the_same(tmp_path: Path) -> None:
    """What is written to the folder has the loaded dtype."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", dtype="bfloat16")
    expected = _answer(checkpoint.load_language(model_dir).model)
    device_map = _map(**{LAYER_1: "disk"})
    loaded = checkpoint.load_language(model_dir, device_map=device_map, offload_folder=tmp_path / "offload")
    assert _answer(loaded.model) == expected


def test_disk_needs_a_folder(plain: Path) -> None:
    """Offloading without a folder is refused before anything is read."""
    with pytest.raises(checkpoint.LoadOptionError, match="offload folder"):
        checkpoint.load_language(plain, device_map={"": "disk"})


def test_a_map_that_leaves_something_out_is_refused(plain: Path) -> None:
    """The parameter without a place is named."""
    with pytest.raises(checkpoint.LoadOptionError, match="lm_head"):
        checkpoint.load_language(plain, device_map={"model": "cpu"})


def test_an_unknown_strategy_is_refused(plain: Path) -> None:
    """The error lists the strategies."""
    with pytest.raises(checkpoint.LoadOptionError, match="balanced"):
        checkpoint.load_language(plain, device_map="everywhere")
