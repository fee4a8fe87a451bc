"""A head and a token table of one weight, held once."""

from pathlib import Path

import pytest
import torch

from checkpoint import load_language
from kernels import NativeLinear, PackedLinear, PackedTable
from lm_server.tied import embedded_dtype, hold_table_once, input_device
from tests import families


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_table_is_read_from_the_packed_head(tmp_path: Path, dtype: str) -> None:
    """Loaded with the table held once, rows and dtype are what the plain table gives, and no plain one is left."""
    model_dir = families.make("qwen2_vl", tmp_path / "m", tied=True)
    plain = load_language(model_dir, dtype=dtype).model.model.language_model.embed_tokens
    model = load_language(model_dir, dtype=dtype, on_table=hold_table_once).model
    table = model.model.language_model.embed_tokens
    if not isinstance(table, PackedTable):
        pytest.skip("this processor's oneDNN has no packed weights of that kind, or another layout")
    tokens = torch.arange(plain.num_embeddings)
    assert torch.equal(table(tokens), plain(tokens))
    assert embedded_dtype(table) == embedded_dtype(plain)
    assert input_device(table) == "cpu"
    assert isinstance(model.lm_head, NativeLinear | PackedLinear)
    assert not any("embed_tokens" in name or "lm_head" in name for name, _ in model.named_parameters())


def test_it_is_done_once(tmp_path: Path) -> None:
    """A second call changes nothing, so that a loaded half can be given to another engine."""
    model = load_language(families.make("qwen2_vl", tmp_path / "m", tied=True)).model
    assert hold_table_once(model) == hold_table_once(model)


def test_a_head_of_its_own_stays(tmp_path: Path) -> None:
    """Where head and table are different weights, both stay as they are."""
    model = load_language(families.make("qwen2_vl", tmp_path / "m", tied=False)).model
    assert not hold_table_once(model)
    assert isinstance(model.lm_head, torch.nn.Linear)
    assert isinstance(model.model.language_model.embed_tokens, torch.nn.Embedding)
