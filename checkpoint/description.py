"""The facts about a checkpoint that its JSON files alone tell: no weights, no remote code."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from checkpoint.errors import CheckpointError, Fault, FaultKind, UnsupportedFamily
from checkpoint.families import FAMILIES, REFUSED, Family, VideoLayout

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
ADAPTER_FILE = "adapter_config.json"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a worker needs to know before, and beside, the weights."""

    name: str  # of the directory
    family: str  # config.json's model_type
    config: Any  # transformers' config object of the whole model
    hidden_size: int  # of the language model, hence of one image token
    num_deepstack: int  # tensors of an entry beside the embedding; 0 for families without DeepStack
    spatial_merge_size: int
    patch_size: int
    temporal_patch_size: int
    image_token_id: int
    video_token_id: int
    video_layout: VideoLayout
    tokens_per_second: float  # of CLOCKED videos' positions; 1 for the others
    vision_start_token_id: int
    vision_end_token_id: int
    eos_token_ids: tuple[int, ...]
    context_tokens: int


def describe(model_dir: Path) -> ModelDescription:
    """Read config.json and generation_config.json.

    Raises UnsupportedFamily for a model_type that is not served, CheckpointError where config.json is absent, broken,
    or describes quantised weights. An `auto_map` in it is not followed: no code is ever taken from a checkpoint.
    """
    raw = read_config(model_dir)
    family = family_of(raw, model_dir)
    config = _parse(raw, family, model_dir)
    vision, text = config.vision_config, config.text_config
    return ModelDescription(
        name=model_dir.resolve().name,
        family=family.model_type,
        config=config,
        hidden_size=text.hidden_size,
        num_deepstack=len(getattr(vision, "deepstack_visual_indexes", None) or ()),
        spatial_merge_size=vision.spatial_merge_size,
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        image_token_id=config.image_token_id,
        video_token_id=config.video_token_id,
        video_layout=family.video,
        tokens_per_second=getattr(vision, "tokens_per_second", 1),
        vision_start_token_id=config.vision_start_token_id,
        vision_end_token_id=config.vision_end_token_id,
        eos_token_ids=_eos_token_ids(model_dir, text.eos_token_id),
        context_tokens=text.max_position_embeddings,
    )


def read_config(model_dir: Path) -> Json:
    """config.json as it stands. Raises CheckpointError where it is absent or not a JSON object."""
    return _read_json(model_dir, CONFIG_FILE)


def family_of(raw_config: Json, model_dir: Path) -> Family:
    """The family of a config.json. Raises UnsupportedFamily."""
    model_type = str(raw_config.get("model_type"))
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise UnsupportedFamily(model_type, FAMILIES, REFUSED.get(model_type, "is not known"), model_dir.resolve().name)


def ties_lm_head(config: Any) -> bool:
    """Whether lm_head is the embedding; flat configs say so at the top level, which the config class passes on."""
    return bool(config.tie_word_embeddings)


def _parse(raw: Json, family: Family, model_dir: Path) -> Any:
    if raw.get("quantization_config"):
        _refuse(model_dir, CONFIG_FILE, "the weights are quantised (quantization_config), which is not supported")
    config_class = getattr(importlib.import_module(family.config_module), family.config_class)
    try:
        return config_class.from_dict(raw)
    except Exception as exc:  # noqa: BLE001 - the config classes raise errors of many libraries
        _refuse(model_dir, CONFIG_FILE, f"transformers cannot read it as {family.model_type}: {exc}")


def _eos_token_ids(model_dir: Path, from_config: int | list[int] | None) -> tuple[int, ...]:
    """The end tokens, generation_config.json's word before config.json's."""
    stated: Any = from_config
    if (model_dir / GENERATION_FILE).exists():
        stated = _read_json(model_dir, GENERATION_FILE).get("eos_token_id", from_config)
    ids = [stated] if isinstance(stated, int) else (stated or [])
    if not all(isinstance(id_, int) for id_ in ids):
        _refuse(model_dir, GENERATION_FILE, f"eos_token_id is {stated!r}")
    return tuple(dict.fromkeys(ids))


def _refuse(model_dir: Path, file_name: str, detail: str, cause: Exception | None = None) -> NoReturn:
    raise CheckpointError([Fault(FaultKind.BAD_CONFIG, file_name, detail)], model_dir.resolve().name) from cause


def _read_json(model_dir: Path, file_name: str) -> Json:
    try:
        value = json.loads((model_dir / file_name).read_bytes())
    except OSError as exc:
        _refuse(model_dir, file_name, f"the file cannot be read: {exc.strerror}{_adapter_hint(model_dir)}", exc)
    except (ValueError, RecursionError) as exc:
        _refuse(model_dir, file_name, "the file is not JSON", exc)
    if not isinstance(value, dict):
        _refuse(model_dir, file_name, "the file is not a JSON object")
    return value


def _adapter_hint(model_dir: Path) -> str:
    if not (model_dir / ADAPTER_FILE).is_file():
        return ""
    return f"; {ADAPTER_FILE} is here, so this is a LoRA adapter: serve its base model, and this with --lora NAME=PATH"
