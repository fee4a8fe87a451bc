"""A half's module with its parameters on the meta device: shapes without memory. Buffers are real, and float32."""

import importlib
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.initialization import no_init_weights, no_tie_weights

from checkpoint.description import ModelDescription, ties_lm_head
from checkpoint.families import FAMILIES
from checkpoint.halves import VISION_PREFIX, Half
from checkpoint.plan import Needed


def empty_vision(description: ModelDescription) -> nn.Module:
    """The family's own vision class of transformers, built from the config's vision part."""
    return _build(description, FAMILIES[description.family].vision_class, description.config.vision_config)


def empty_language(description: ModelDescription) -> nn.Module:
    """The family's whole class with `model.visual` None: generate, rope index and tying stay as they are."""
    model = _build(description, FAMILIES[description.family].whole_class, description.config)
    model.model.visual = None  # type: ignore[union-attr]  # the attribute is the class's own
    return model


def needed_by(module: nn.Module, half: Half, description: ModelDescription) -> Needed:
    """The canonical names and shapes of the module's parameters."""
    prefix = VISION_PREFIX if half is Half.VISION else ""
    shapes = {prefix + name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    return Needed(shapes, tied=half is Half.LANGUAGE and ties_lm_head(description.config))


def set_dtype(config: Any, dtype: torch.dtype) -> None:
    """Write the loaded dtype into the config and its parts, as from_pretrained does: caches and masks follow it."""
    config.dtype = dtype
    for part in config.sub_configs:
        getattr(config, part).dtype = dtype


def _build(description: ModelDescription, class_name: str, config: Any) -> nn.Module:
    modeling = importlib.import_module(FAMILIES[description.family].modeling_module)
    with no_init_weights(), no_tie_weights(), init_empty_weights(include_buffers=False):
        module: nn.Module = getattr(modeling, class_name)(config)
    return module
