"""Reading adapters: what PEFT writes is read whole, and everything else is refused by name."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm_server.adapter_config import FILE, parse
from lm_server.adapters import MAX_CONFIG_BYTES, PICKLE, WEIGHTS, Shape, read_adapter
from rpc.errors import InvalidArgument
from tests.lm_server.tuning import ATTENTION, save_adapter
from tests.lm_server.workshop import Workshop

MAX_BYTES = 1 << 24
WRAPPED = "base_model.model.model.language_model."
Q = "model.language_model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]
Edit = Callable[[dict[str, Any], Tensors], None]


@pytest.fixture(scope="module")
def saved(one_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of all attention, as PEFT saves it."""
    return save_adapter(one_workshop.oracle, tmp_path_factory.mktemp("saved") / "it", target_modules=ATTENTION)


@pytest.fixture(scope="module")
def linears(one_workshop: Workshop) -> Mapping[str, Shape]:
    """The whole model's linear layers outside its tower."""
    return {
        name: Shape(module.out_features, module.in_features)
        for name, module in one_workshop.oracle.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "visual" not in name
    }


@pytest.fixture
def edited(saved: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Writes the saved adapter with a change."""

    def write(edit: Edit) -> Path:
        config = json.loads((saved / FILE).read_text())
        tensors = load_file(saved / WEIGHTS)
        edit(config, tensors)
        (tmp_path / FILE).write_text(json.dumps(config))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / WEIGHTS)
        return tmp_path

    return write


def test_what_peft_saves_is_read_whole(saved: Path, linears: Mapping[str, Shape]) -> None:
    """Every tensor of the file comes back as it is, under the layer's name in the whole model."""
    found = read_adapter(saved, linears, MAX_BYTES)
    stored = load_file(saved / WEIGHTS)
    assert len(stored) == 2 * len(found.matrices) == 2 * len(ATTENTION) * 3
    for module, matrices in found.matrices.items():
        assert torch.equal(matrices.a, stored[f"base_model.model.{module}.lora_A.weight"])
        assert torch.equal(matrices.b, stored[f"base_model.model.{module}.lora_B.weight"])
        assert matrices.scale == 2.0
    assert found.rank == 4


@pytest.mark.parametrize("layout", ["model.", "language_model.", "language_model.model."])
def test_older_layouts_are_the_same_adapter(
    edited: Callable[[Edit], Path], saved: Path, linears: Mapping[str, Shape], layout: str
) -> None:
    """Files that name the language half as older libraries did give the same matrices for the same layers."""

    def rename(config: dict[str, Any], tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(WRAPPED, f"base_model.model.{layout}")] = tensors.pop(name)

    expected, found = (read_adapter(each, linears, MAX_BYTES) for each in (saved, edited(rename)))
    assert found.matrices.keys() == expected.matrices.keys()
    assert all(torch.equal(found.matrices[name].b, each.b) for name, each in expected.matrices.items())


def test_the_digest_is_of_what_was_read(
    edited: Callable[[Edit], Path], saved: Path, linears: Mapping[str, Shape]
) -> None:
    """Equal files have equal digests; one value, or one number of the configuration, makes another."""

    def value(config: dict[str, Any], tensors: Tensors) -> None:
        tensors[f"{WRAPPED}layers.0.self_attn.q_proj.lora_B.weight"][0, 0] += 1

    def alpha(config: dict[str, Any], tensors: Tensors) -> None:
        config["lora_alpha"] = 9

    digests = [read_adapter(saved, linears, MAX_BYTES).digest for _ in range(2)]
    digests += [read_adapter(edited(edit), linears, MAX_BYTES).digest for edit in (value, alpha)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_ranks_and_scales_follow_their_patterns() -> None:
    """The first pattern that fits a module's name decides, as PEFT has it; rank stabilisation divides by a root."""
    config = parse(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 4,
                "lora_alpha": 8,
                "use_rslora": True,
                "target_modules": ["q_proj", "v_proj"],
                "rank_pattern": {r"layers\.[01]\.self_attn.q_proj": 16},
                "alpha_pattern": {"v_proj": 3},
                "layers_to_transform": [1],
            }
        ).encode()
    )
    q0, q1, v2 = (
        f"model.layers.{index}.self_attn.{name}" for index, name in ((0, "q_proj"), (1, "q_proj"), (2, "v_proj"))
    )
    assert [config.rank_of(each) for each in (q0, q1, v2)] == [16, 16, 4]
    assert [config.scale_of(each) for each in (q0, q1, v2)] == [2.0, 2.0, 1.5]
    assert [config.covers(each) for each in (q0, q1, v2)] == [False, True, False]


def set_to(**fields: Any) -> Edit:
    """Sets fields of the configuration."""
    return lambda config, tensors: config.update(fields)


def add(name: str, *shape: int) -> Edit:
    """Adds a tensor."""
    return lambda config, tensors: tensors.update({name: torch.zeros(shape or (4, 64))})


def change(side: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    """Changes one matrix of the first layer's queries."""
    name = f"{WRAPPED}layers.0.self_attn.q_proj.lora_{side}.weight"
    return lambda config, tensors: tensors.update({name: make(tensors[name])})


def without(part: str) -> Edit:
    """Takes tensors away."""

    def edit(config: dict[str, Any], tensors: Tensors) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return edit


def renamed(old: str, new: str) -> Edit:
    """Renames tensors."""

    def edit(config: dict[str, Any], tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return edit


REFUSED: dict[str, tuple[Edit, str]] = {
    # The configuration
    "not LoRA": (set_to(peft_type="IA3"), "peft_type"),
    "dora": (set_to(use_dora=True), "use_dora"),
    "saved modules": (set_to(modules_to_save=["embed_tokens"]), "modules_to_save"),
    "biases": (set_to(bias="lora_only"), "bias"),
    "lora_bias": (set_to(lora_bias=True), "lora_bias"),
    "new tokens": (set_to(trainable_token_indices=[1, 2]), "trainable_token_indices"),
    "parameters": (set_to(target_parameters=["experts.down_proj"]), "target_parameters"),
    "activated": (set_to(alora_invocation_tokens=[5]), "alora_invocation_tokens"),
    "transposed": (set_to(fan_in_fan_out=True), "fan_in_fan_out"),
    "replicated": (set_to(layer_replication=[[0, 1]]), "layer_replication"),
    "other weights": (set_to(init_lora_weights="pissa_niter_4"), "init_lora_weights"),
    "unknown": (set_to(use_something_new=True), "use_something_new"),
    "rank 0": (set_to(r=0), "r must be"),
    "rank as text": (set_to(r="8"), "r must be"),
    "alpha": (set_to(lora_alpha="x"), "lora_alpha"),
    "NaN alpha": (set_to(lora_alpha=float("nan")), "lora_alpha"),
    "rank pattern": (set_to(rank_pattern={"q_proj": -1}), "rank_pattern.*q_proj"),
    "alpha pattern": (set_to(alpha_pattern=[1]), "alpha_pattern"),
    "exploding pattern": (set_to(target_modules="(a+)+$"), "target_modules.*repeats"),
    "many repeats": (set_to(alpha_pattern={".*" * 9: 1}), "alpha_pattern.*repeats"),
    "no pattern": (set_to(target_modules="(["), "target_modules.*regular expression"),
    "no targets": (set_to(target_modules=[]), "target_modules"),
    "layers": (set_to(layers_to_transform=["a"]), "layers_to_transform"),
    "other layers": (set_to(layers_pattern="blocks"), "layers_pattern"),
    # What the tensors belong to
    "tower": (add("base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight"), "vision tower"),
    "older tower": (add("base_model.model.visual.blocks.0.attn.qkv.lora_A.weight"), "vision tower"),
    "token table": (add(f"{WRAPPED}embed_tokens.lora_embedding_A"), "token table"),
    "magnitude": (add(f"{WRAPPED}layers.0.self_attn.q_proj.lora_magnitude_vector"), "DoRA"),
    "bias tensor": (add(f"{WRAPPED}layers.0.self_attn.q_proj.lora_B.bias"), "lora_bias"),
    "saved tensor": (add(f"{WRAPPED}norm.modules_to_save.weight"), "modules_to_save"),
    "experts": (add(f"{WRAPPED}layers.0.mlp.experts.lora_A.weight"), "experts"),
    "whole weight": (add(f"{WRAPPED}embed_tokens.weight"), "not the name of a LoRA matrix"),
    "the model's own": (add("base_model.model.lm_head.base_layer.weight"), "save_embedding_layers=False"),
    "unwrapped": (renamed("base_model.model.", ""), "not the name of a LoRA matrix"),
    "no such layer": (add(f"{WRAPPED}layers.9.self_attn.q_proj.lora_A.weight"), "belongs to no linear layer"),
    "another layout": (add("base_model.model.model.decoder.0.q_proj.lora_A.weight"), "belongs to no linear layer"),
    "two layouts": (renamed(f"{WRAPPED}layers.0", "base_model.model.model.layers.0"), "2 different ways"),
    "twice": (add("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), "twice"),
    # Half of it
    "A alone": (without("layers.0.self_attn.q_proj.lora_B"), f"lacks the matrix B of {Q}"),
    "B alone": (without("layers.0.self_attn.q_proj.lora_A"), f"lacks the matrix A of {Q}"),
    "a layer less": (without("layers.2.self_attn.v_proj"), "lacks .*layers.2.self_attn.v_proj"),
    "a target less": (set_to(target_modules=["q_proj", "k_proj", "v_proj"]), "o_proj, which target_modules is not for"),
    "the tower's target": (set_to(target_modules=[*ATTENTION, "qkv"]), "target_modules.*qkv"),
    "another target": (set_to(target_modules=r".*\.none"), "target_modules.*none"),
    "excluded": (set_to(exclude_modules=["q_proj"]), "q_proj, which target_modules is not for"),
    "nothing": (without("lora"), "no tensors"),
    # The values
    "rank of the file": (set_to(r=5), "shape .*and .*is needed"),
    "shape of A": (change("A", lambda a: a[:, 1:]), "matrix A of .*shape"),
    "shape of B": (change("B", lambda b: b[1:]), "matrix B of .*shape"),
    "NaN": (change("A", lambda a: a.fill_(float("nan"))), "NaN or infinite"),
    "infinite": (change("B", lambda b: b.fill_(float("inf"))), "NaN or infinite"),
    "integers": (change("A", lambda a: a.to(torch.int32)), "I32"),
    "doubles": (change("A", lambda a: a.double()), "F64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_served_is_refused_by_name(
    edited: Callable[[Edit], Path], linears: Mapping[str, Shape], case: str
) -> None:
    """An adapter that would be applied in part, or wrongly, is refused, and the message names what is at fault."""
    edit, named = REFUSED[case]
    with pytest.raises(InvalidArgument, match=named) as raised:
        read_adapter(edited(edit), linears, MAX_BYTES)
    assert raised.value.reason == "ADAPTER_INVALID"


def drop(name: str) -> Callable[[Path], None]:
    """Takes a file away."""
    return lambda directory: (directory / name).unlink()


def write(name: str, data: bytes) -> Callable[[Path], None]:
    """Puts bytes in a file's place."""
    return lambda directory: (directory / name).write_bytes(data) and None


def pickled(directory: Path) -> None:
    """Leaves only what torch.save would have written."""
    (directory / WEIGHTS).rename(directory / PICKLE)


def piped(directory: Path) -> None:
    """Puts a pipe, which never ends, in the file's place."""
    (directory / WEIGHTS).unlink()
    os.mkfifo(directory / WEIGHTS)


def cut(directory: Path) -> None:
    """Cuts the file's last byte off."""
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[:-1])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop(FILE), FILE),
        (drop(WEIGHTS), WEIGHTS),
        (pickled, "adapter_model.bin is a pickle"),
        (piped, "not a file"),
        (cut, WEIGHTS),
        (write(WEIGHTS, b"\x80\x04K\x01."), WEIGHTS),
        (write(FILE, b"{"), "not JSON"),
        (write(FILE, b"[]"), "not a JSON object"),
        (write(FILE, b"[" * 100_000), "not JSON"),
        (write(FILE, b" " * (MAX_CONFIG_BYTES + 1)), "bytes"),
    ],
)
def test_damaged_directories_are_refused(
    saved: Path, linears: Mapping[str, Shape], tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    """A file that is absent, cut, a pickle, a pipe or not what its name says is named."""
    directory = Path(shutil.copytree(saved, tmp_path / "copy"))
    damage(directory)
    with pytest.raises(InvalidArgument, match=named):
        read_adapter(directory, linears, MAX_BYTES)


def test_too_many_bytes_are_not_read(saved: Path, linears: Mapping[str, Shape]) -> None:
    """A file over the limit is refused by its size."""
    with pytest.raises(InvalidArgument, match="bytes and 100 are taken"):
        read_adapter(saved, linears, 100)


@pytest.mark.parametrize(
    "targets", ["all-linear", r".*language_model.*\.(?:self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"]
)
def test_targets_may_be_a_pattern(edited: Callable[[Edit], Path], linears: Mapping[str, Shape], targets: str) -> None:
    """A pattern, or PEFT's word for all, is for the layers that it names: those without matrices are missed."""
    with pytest.raises(InvalidArgument, match=r"lacks .*layers.0.mlp.down_proj"):
        read_adapter(edited(set_to(target_modules=targets)), linears, MAX_BYTES)
