"""A LoRA adapter's directory, as PEFT writes it → its matrices, every one checked against the model's linear layers.

Whole or not at all: every tensor of the file belongs to a linear layer of the language half, and every layer that the
configuration is for has both of its matrices. No policy: which directories may be read is decided elsewhere.
"""

import hashlib
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from checkpoint.precision import STORED_DTYPES
from checkpoint.reading import all_finite
from checkpoint.shards import ShardError, StoredTensor, read_header, read_into
from lm_server import adapter_config
from lm_server.adapter_config import LoraConfig, refused

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
MAX_CONFIG_BYTES = 1 << 20
DTYPES = frozenset({"F32", "F16", "BF16"})
WRAPPER = "base_model.model."
LANGUAGE = "model.language_model."
HEAD = "lm_head"
# How files of different ages name the language half inside the wrapper; `model.layers` is transformers' before 4.52.
LAYOUTS = (LANGUAGE, "language_model.model.", "language_model.", "model.")
HEADS = (HEAD, "language_model.lm_head")
SIDES = {".lora_A.weight": "A", ".lora_B.weight": "B"}
# Part of a tensor's name → what it belongs to, none of which is served.
FOREIGN = {
    "visual.": "the vision tower, whose embeddings are shared by all; train adapters of the language half alone",
    "lora_embedding_": "the token table (embedding LoRA)",
    "lora_magnitude_vector": "DoRA",
    ".lora_B.bias": "lora_bias",
    "modules_to_save": "modules_to_save",
    "token_adapter": "trainable_token_indices",
    ".experts": "experts",
    ".base_layer.": "the model itself: save the adapter with save_embedding_layers=False",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a linear layer's weight."""

    out_features: int
    in_features: int


@dataclass(frozen=True, slots=True)
class Matrices:
    """What an adapter has for one linear layer: A [r, I], B [O, r] as stored, and what their product counts by."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter that was read.

    Attributes:
        matrices: By the layer's name in the whole model: `model.language_model.layers.0.self_attn.q_proj`, `lm_head`.
        rank: The largest of all.
        digest: Of everything that was read.
    """

    matrices: Mapping[str, Matrices]
    rank: int
    digest: str


def read_adapter(directory: Path, linears: Mapping[str, Shape], max_bytes: int) -> AdapterFile:
    """Reads and checks an adapter of a model with these linear layers, by their names in the whole model.

    Raises:
        InvalidArgument: it is not one, it is over `max_bytes`, or it needs what is not served; says what and where.
    """
    config_text = _read_config(directory)
    config = adapter_config.parse(config_text)
    stored = _stored(directory, max_bytes)
    names = _named(stored, linears)
    _check_complete(config, names, linears)
    digest = hashlib.blake2b(config_text, digest_size=16)
    matrices = {module: _matrices(module, names[module], config, linears[module], digest) for module in sorted(names)}
    rank = max(each.a.shape[0] for each in matrices.values())
    return AdapterFile(matrices, rank, digest.hexdigest())


@dataclass(slots=True)
class _Pair:
    """A layer's two tensors in the file. `own_name` is what the file calls the layer."""

    own_name: str
    sides: dict[str, StoredTensor]


def _read_config(directory: Path) -> bytes:
    path = directory / adapter_config.FILE
    _check_file(path, MAX_CONFIG_BYTES)
    try:
        with path.open("rb") as file:
            return file.read(MAX_CONFIG_BYTES)
    except OSError as exc:
        raise refused(f"{path.name} cannot be read") from exc


def _check_file(path: Path, max_bytes: int) -> None:
    try:
        found = path.stat()
    except OSError as exc:
        raise refused(f"there is no {path.name}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise refused(f"{path.name} is not a file")
    if found.st_size > max_bytes:
        raise refused(f"{path.name} has {found.st_size} bytes and {max_bytes} are taken")


def _stored(directory: Path, max_bytes: int) -> tuple[StoredTensor, ...]:
    path = directory / WEIGHTS
    if not path.exists() and (directory / PICKLE).exists():
        raise refused(f"{PICKLE} is a pickle, which is never opened: save the adapter as safetensors")
    _check_file(path, max_bytes)
    try:
        stored = read_header(path)
    except ShardError as exc:
        raise refused(f"{WEIGHTS}: {exc.detail}") from exc
    if not stored:
        raise refused(f"{WEIGHTS} holds no tensors")
    return stored


def _named(stored: Iterable[StoredTensor], linears: Mapping[str, Shape]) -> dict[str, _Pair]:
    """The file's tensors by the layer that they belong to; none is left over."""
    pairs: dict[str, _Pair] = {}
    layouts: set[str] = set()
    for tensor in stored:
        own_name, side = _parted(tensor.name)
        module, layout = _canonical(own_name)
        if module not in linears:
            raise refused(f"{tensor.name!r:.200} belongs to no linear layer of this model's language half")
        layouts.add(layout)
        pair = pairs.setdefault(module, _Pair(own_name, {}))
        if side in pair.sides:
            raise refused(f"{WEIGHTS} has the matrix {side} of {module} twice, under different names")
        pair.sides[side] = tensor
    if len(layouts - {HEAD}) > 1:
        raise refused(f"{WEIGHTS} names layers in {len(layouts - {HEAD})} different ways")
    return pairs


def _parted(name: str) -> tuple[str, str]:
    """A tensor's name as what the file calls its layer, and which of the two matrices it is."""
    for part, owner in FOREIGN.items():
        if part in name:
            raise refused(f"{name!r:.200} belongs to {owner}: it is not served")
    for ending, side in SIDES.items():
        if name.startswith(WRAPPER) and name.endswith(ending):
            return name.removeprefix(WRAPPER).removesuffix(ending), side
    raise refused(f"{name!r:.200} is not the name of a LoRA matrix as PEFT writes it")


def _canonical(own_name: str) -> tuple[str, str]:
    """A layer's name in the whole model, and how the file names layers."""
    if own_name in HEADS:
        return HEAD, HEAD
    for layout in LAYOUTS:
        if own_name.startswith(f"{layout}layers."):
            return LANGUAGE + own_name.removeprefix(layout), layout
    return own_name, ""


def _check_complete(config: LoraConfig, pairs: Mapping[str, _Pair], linears: Mapping[str, Shape]) -> None:
    """The layers with matrices are those that the configuration is for."""
    own_names = _own_names(pairs, linears)
    missing = config.unmatched(frozenset(own_names.values()))
    if missing:
        raise refused(f"target_modules: {missing[0]!r:.200} is no linear layer of this model's language half")
    for module, own_name in sorted(own_names.items()):
        if config.covers(own_name) and module not in pairs:
            raise refused(f"{WEIGHTS} lacks {module}, which target_modules is for")
        if module in pairs and not config.covers(own_name):
            raise refused(f"{WEIGHTS} has {module}, which target_modules is not for")


def _own_names(pairs: Mapping[str, _Pair], linears: Mapping[str, Shape]) -> dict[str, str]:
    """What the file calls, or would call, each layer."""
    heads = [pair.own_name for module, pair in pairs.items() if module == HEAD]
    layouts = [_canonical(pair.own_name)[1] for module, pair in pairs.items() if module != HEAD]
    layout = layouts[0] if layouts else LANGUAGE
    return {
        module: (heads[0] if heads else HEAD) if module == HEAD else layout + module.removeprefix(LANGUAGE)
        for module in linears
    }


def _matrices(module: str, pair: _Pair, config: LoraConfig, shape: Shape, digest: "hashlib.blake2b") -> Matrices:
    rank = config.rank_of(pair.own_name)
    wanted = {"A": (rank, shape.in_features), "B": (shape.out_features, rank)}
    read: dict[str, torch.Tensor] = {}
    for side, sizes in wanted.items():
        tensor = pair.sides.get(side)
        if tensor is None:
            raise refused(f"{WEIGHTS} lacks the matrix {side} of {module}")
        if tensor.shape != sizes:
            raise refused(f"the matrix {side} of {module} has shape {list(tensor.shape)}, and {list(sizes)} is needed")
        read[side] = _read(tensor, digest)
    return Matrices(read["A"], read["B"], config.scale_of(pair.own_name))


def _read(tensor: StoredTensor, digest: "hashlib.blake2b") -> torch.Tensor:
    if tensor.dtype not in DTYPES:
        raise refused(f"{tensor.name!r:.200} is of {tensor.dtype}, and {', '.join(sorted(DTYPES))} are taken")
    values = torch.empty(tensor.shape, dtype=STORED_DTYPES[tensor.dtype])
    raw = memoryview(values.view(-1).view(torch.uint8).numpy().data)
    try:
        read_into(tensor, raw)
    except ShardError as exc:
        raise refused(f"{WEIGHTS}: {exc.detail}") from exc
    if not all_finite(values):
        raise refused(f"{tensor.name!r:.200} holds NaN or infinite values")
    digest.update(f"\0{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
    digest.update(raw)
    return values
