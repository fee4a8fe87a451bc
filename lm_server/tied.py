"""The token table and the head where they are one weight: packed for the head, and held once."""

from typing import Any

import torch
from torch import nn

from kernels import NativeLinear, PackedLinear, PackedTable, packed_linear, packed_table


def hold_table_once(model: Any) -> bool:
    """Packs the head of a language half that shares its weight, and takes tokens' embeddings from the packed one.

    Done while the half is loaded, as soon as the table is there, it saves the room of a second one. Returns whether the
    table is held so now; it is not where the two are different weights, elsewhere than on this CPU, or hooked, or where
    oneDNN's layout is not a known one.
    """
    text = model.model.language_model
    if isinstance(text.embed_tokens, PackedTable):
        return True
    table = _packed(model.lm_head, text.embed_tokens)
    if table is None:
        return False
    model.lm_head, text.embed_tokens = table
    return True


def embedded_dtype(embedding: nn.Module) -> torch.dtype:
    """Of the rows that a table gives."""
    return embedding.dtype if isinstance(embedding, PackedTable) else _weight(embedding).dtype


def input_device(embedding: nn.Module) -> torch.device | str:
    """Where tokens go in. Offloaded weights are on no device; their hooks move what comes in."""
    if isinstance(embedding, PackedTable) or _weight(embedding).is_meta:
        return "cpu"
    return _weight(embedding).device


def _packed(head: Any, embedding: Any) -> tuple[NativeLinear | PackedLinear, PackedTable] | None:
    are_plain = type(head) is nn.Linear and type(embedding) is nn.Embedding
    are_hooked = any(hasattr(module, "_hf_hook") for module in (head, embedding))
    if not are_plain or are_hooked or head.weight is not embedding.weight:
        return None
    weight = _weight(embedding).detach()
    layer = packed_linear(weight) if head.bias is None else None
    table = None if layer is None else packed_table(layer, weight)
    return None if layer is None or table is None else (layer, table)


def _weight(embedding: nn.Module) -> torch.Tensor:
    weight = embedding.weight
    if not isinstance(weight, torch.Tensor):
        raise TypeError("a token table has a weight")
    return weight
