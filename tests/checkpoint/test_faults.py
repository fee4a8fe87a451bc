"""Every fault of the files is refused, by the name of the tensor or file, all of them in one error."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import checkpoint
from checkpoint import FaultKind
from tests import families
from tests.checkpoint.editing import Tensors, rewrite, set_config, shards_of

LAYER = "model.layers.0.self_attn.q_proj.weight"
BLOCK = "visual.blocks.0.attn.qkv.weight"


def _replaced(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: make(tensors[name])}


def _with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def make(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return make


DAMAGE: dict[str, tuple[FaultKind, Callable[[torch.Tensor], torch.Tensor]]] = {
    "wrong shape": (FaultKind.WRONG_SHAPE, lambda t: t[:-1].contiguous()),
    "transposed": (FaultKind.WRONG_SHAPE, lambda t: torch.zeros(t.shape[0] + 1, t.shape[1])),
    "empty shape": (FaultKind.EMPTY_SHAPE, lambda t: torch.zeros(0)),
    "int8": (FaultKind.WRONG_DTYPE, lambda t: t.to(torch.int8)),
    "float8": (FaultKind.WRONG_DTYPE, lambda t: t.to(torch.float8_e4m3fn)),
    "NaN": (FaultKind.NOT_FINITE, _with_value(float("nan"))),
    "infinity": (FaultKind.NOT_FINITE, _with_value(float("inf"))),
    "minus infinity": (FaultKind.NOT_FINITE, _with_value(float("-inf"))),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [LAYER, BLOCK])
def test_a_damaged_tensor_is_refused_by_name(plain: Path, name: str, damage: str) -> None:
    """Its own half refuses it and names it; the other half does not mind."""
    kind, make = DAMAGE[damage]
    rewrite(plain, _replaced(name, make))
    own, other = _loaders(name)
    with pytest.raises(checkpoint.CheckpointError, match=name) as error:
        own(plain)
    assert [(fault.kind, fault.name) for fault in error.value.faults] == [(kind, name)]
    other(plain)


def _loaders(name: str) -> tuple[Callable[[Path], object], Callable[[Path], object]]:
    pair = (checkpoint.load_vision, checkpoint.load_language)
    return pair if name.startswith("visual.") else pair[::-1]


@pytest.mark.parametrize("name", [LAYER, BLOCK, "lm_head.weight"])
def test_a_missing_tensor_is_named(plain: Path, name: str) -> None:
    """A tensor that no file holds is a fault, an untied lm_head among them: nothing is ever initialised at random."""
    rewrite(plain, lambda tensors: {key: t for key, t in tensors.items() if key != name})
    with pytest.raises(checkpoint.CheckpointError) as error:
        _loaders(name)[0](plain)
    (fault,) = error.value.faults
    assert fault.kind is FaultKind.MISSING
    assert fault.name.endswith(name.removeprefix("model.").removeprefix("visual."))


@pytest.mark.parametrize("name", ["visual.extra.weight", "model.layers.9.mlp.up_proj.weight", "mtp.fc.weight"])
def test_an_unexpected_tensor_is_named(plain: Path, name: str) -> None:
    """A tensor that the model does not have means that the checkpoint is another model's."""
    rewrite(plain, lambda tensors: tensors | {name: torch.zeros(2)})
    with pytest.raises(checkpoint.CheckpointError, match="unexpected") as error:
        _loaders(name)[0](plain)
    assert [fault.name for fault in error.value.faults] == [name]


def test_rotary_frequencies_of_old_files_are_passed_over(plain: Path) -> None:
    """inv_freq, once saved with every layer, is neither read nor a fault."""
    rewrite(plain, lambda tensors: tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)})
    checkpoint.load_language(plain)


def test_all_faults_are_in_one_error(plain: Path) -> None:
    """Missing, unexpected, misshapen and NaN tensors are all listed at once."""

    def damage(tensors: Tensors) -> Tensors:
        tensors.pop("model.norm.weight")
        tensors["model.layers.7.bogus"] = torch.zeros(1)
        tensors[LAYER] = torch.zeros(0)
        tensors["model.layers.1.mlp.up_proj.weight"].fill_(float("nan"))
        return tensors

    rewrite(plain, damage)
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load_language(plain)
    kinds = {fault.kind for fault in error.value.faults}
    assert kinds == {FaultKind.MISSING, FaultKind.UNEXPECTED, FaultKind.EMPTY_SHAPE, FaultKind.NOT_FINITE}
    for name in ("language_model.norm.weight", "model.layers.7.bogus", LAYER, "model.layers.1.mlp.up_proj.weight"):
        assert name in str(error.value)


def test_values_beyond_float16_are_not_made_infinite(plain: Path) -> None:
    """A value that only float32 can hold is refused when float16 is asked for, and served otherwise."""
    rewrite(plain, _replaced(LAYER, _with_value(1e6)))
    checkpoint.load_language(plain, dtype="bfloat16")
    with pytest.raises(checkpoint.CheckpointError, match="float16's range"):
        checkpoint.load_language(plain, dtype="float16")


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_a_contradiction(tmp_path: Path) -> None:
    """A stored lm_head beside a tied config must equal the embedding; an equal one is no fault."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", tied=True)
    rewrite(model_dir, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    model = checkpoint.load_language(model_dir).model
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    rewrite(model_dir, _replaced("lm_head.weight", lambda t: t + 1))
    with pytest.raises(checkpoint.CheckpointError, match=r"lm_head\.weight") as error:
        checkpoint.load_language(model_dir)
    assert [fault.kind for fault in error.value.faults] == [FaultKind.CONTRADICTION]


def test_experts_stored_one_by_one_are_refused(tmp_path: Path) -> None:
    """Per-expert tensors, which would leave the fused experts random, are named along with what they leave out."""
    model_dir = families.make("qwen3_vl_moe", tmp_path / "model")
    fused = "model.language_model.layers.0.mlp.experts.down_proj"

    def split(tensors: Tensors) -> Tensors:
        experts = tensors.pop(fused)
        names = [fused.replace("experts.", f"experts.{i}.") + ".weight" for i in range(len(experts))]
        return tensors | dict(zip(names, (expert.clone() for expert in experts), strict=True))

    rewrite(model_dir, split)
    with pytest.raises(checkpoint.CheckpointError, match="fused") as error:
        checkpoint.load_language(model_dir)
    assert fused in {fault.name for fault in error.value.faults if fault.kind is FaultKind.MISSING}


@pytest.mark.parametrize("half", ["vision", "language"])
def test_an_absent_shard_is_named_once(tmp_path: Path, half: str) -> None:
    """The file is the fault, not each of its tensors."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", sharded=True)
    shard = shards_of(model_dir, half)[0]
    shard.unlink()
    with pytest.raises(checkpoint.CheckpointError) as error:
        _load(half)(model_dir)
    assert [(fault.kind, fault.name) for fault in error.value.faults] == [(FaultKind.ABSENT_SHARD, shard.name)]


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_shard_is_named(tmp_path: Path, keep: int) -> None:
    """A file cut in its length field, its header or its tensors is refused."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", sharded=True)
    shard = shards_of(model_dir, "language")[0]
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load_language(model_dir)
    assert [(fault.kind, fault.name) for fault in error.value.faults] == [(FaultKind.TRUNCATED_SHARD, shard.name)]


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 this is a zip file, as torch.save writes",
        (5).to_bytes(8, "little") + b"[1,2]",
        (5).to_bytes(8, "little") + b"{\xff\xff}}",
        (2**40).to_bytes(8, "little") + b"{}",
        (37).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [1]}}',
        (66).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, -16]}}'[:66],
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0, 4]}}     1234',
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4, 8]}}     12345678',
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0, 4]}}     12345678',
        b"[" * 100_000,
    ],
)
def test_a_broken_header_is_named(plain: Path, content: bytes) -> None:
    """What is not safetensors, or contradicts itself, is refused before anything is read from it."""
    (plain / "model.safetensors").write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"model\.safetensors") as error:
        checkpoint.load_vision(plain)
    assert error.value.faults[0].kind in (FaultKind.BROKEN_HEADER, FaultKind.TRUNCATED_SHARD)


@pytest.mark.parametrize("content", ["not json", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_bad_index_is_named(tmp_path: Path, content: str) -> None:
    """An index that maps no tensors to files is refused."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", sharded=True)
    (model_dir / "model.safetensors.index.json").write_text(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"index\.json"):
        checkpoint.load_vision(model_dir)


@pytest.mark.parametrize("target", ["../elsewhere.safetensors", "/etc/passwd", "shard.bin"])
def test_an_index_cannot_point_outside_the_checkpoint(tmp_path: Path, target: str) -> None:
    """Only plain safetensors file names beside config.json are followed."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", sharded=True)
    _edit_index(model_dir, lambda weight_map: weight_map | {BLOCK: target})
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load_vision(model_dir)
    assert (FaultKind.BAD_INDEX, BLOCK) in {(fault.kind, fault.name) for fault in error.value.faults}


def test_an_index_that_disagrees_with_the_shards_is_named(tmp_path: Path) -> None:
    """A tensor said to be where it is not, or stored where it is not said to be, is a fault."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", sharded=True)
    first, second = (shard.name for shard in shards_of(model_dir, "vision"))
    moved = {first: second, second: first}
    _edit_index(model_dir, lambda weight_map: weight_map | {BLOCK: moved[weight_map[BLOCK]]})
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load_vision(model_dir)
    assert {fault.kind for fault in error.value.faults} == {FaultKind.BAD_INDEX}
    assert {fault.name for fault in error.value.faults} == {BLOCK}


def _edit_index(model_dir: Path, edit: Callable[[dict[str, str]], dict[str, str]]) -> None:
    path = model_dir / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"weight_map": edit(index["weight_map"])}))


def test_a_directory_without_safetensors_is_refused(plain: Path) -> None:
    """Pickled weights are never read in their place."""
    (plain / "model.safetensors").rename(plain / "pytorch_model.bin")
    with pytest.raises(checkpoint.CheckpointError, match=r"only safetensors are read; pytorch_model\.bin") as error:
        checkpoint.load_vision(plain)
    assert [fault.kind for fault in error.value.faults] == [FaultKind.ABSENT_SHARD], "nothing is said of its tensors"


def test_an_adapter_is_told_from_a_model(plain: Path) -> None:
    """A directory with an adapter's configuration in the place of a model's is told what it is."""
    (plain / "config.json").rename(plain / "adapter_config.json")
    for load in (checkpoint.load_vision, checkpoint.load_language):
        with pytest.raises(checkpoint.CheckpointError, match="this is a LoRA adapter"):
            load(plain)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapper_in_front_of_every_name_is_repaired_and_reported(whole: Path, prefix: str) -> None:
    """Names that torch.compile or DataParallel left behind are read as if they were right."""
    expected = checkpoint.load_vision(whole).model.state_dict()
    rewrite(whole, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    loaded = checkpoint.load_vision(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert all(any(part in repair for repair in loaded.report.repaired) for part in prefix.split(".")[:-1])
    assert checkpoint.load_language(whole).report.repaired


def test_a_wrapper_inside_a_name_is_repaired(plain: Path) -> None:
    """`model._orig_mod.layers…` is `model.layers…`."""
    rewrite(plain, lambda t: {name.replace("model.layers", "model._orig_mod.layers"): x for name, x in t.items()})
    report = checkpoint.load_language(plain).report
    assert len(report.repaired) == 1
    assert "_orig_mod." in report.repaired[0]


def test_two_names_for_one_tensor_are_refused(plain: Path) -> None:
    """Repair must not choose between `module.X` and `X`."""
    rewrite(plain, lambda tensors: tensors | {f"module.{LAYER}": tensors[LAYER].clone()})
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load_language(plain)
    assert [fault.kind for fault in error.value.faults] == [FaultKind.DUPLICATE]


@pytest.mark.parametrize("model_type", ["qwen3_5", "qwen3_5_moe", "qwen4_exp", "llava", "../x"])
def test_other_families_are_refused_by_name(plain: Path, model_type: str) -> None:
    """The error names the model_type and those that are served."""
    set_config(plain, model_type=model_type)
    for load in (checkpoint.load_vision, checkpoint.load_language, checkpoint.describe):
        with pytest.raises(checkpoint.UnsupportedFamily) as error:
            load(plain)
        assert model_type in str(error.value)
        assert "qwen2_5_vl" in str(error.value)


def _load(half: str) -> Callable[[Path], object]:
    return checkpoint.load_vision if half == "vision" else checkpoint.load_language
