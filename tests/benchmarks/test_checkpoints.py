"""The made checkpoints are what the benchmarks take them for."""

from pathlib import Path

import pytest
import torch
import transformers

from benchmarks.checkpoints import RECIPES, make
from benchmarks.checkpoints.recipes import config_json
from benchmarks.checkpoints.tokenizer import LABELS, write_tokenizer
from checkpoint import inspect

PARAMETERS = {"qwen2-vl": (31.6, 120.7), "qwen2-vl-2b": (665.3, 1543.7), "qwen3-vl-2b": (407.0, 1720.6)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_as_stated(name: str) -> None:
    """Millions of parameters of the tower and of the language model."""
    recipe = RECIPES[name]
    ids = dict.fromkeys(("<|endoftext|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"), 1)
    ids |= {"<|vision_start|>": 1, "<|vision_end|>": 1}
    config = transformers.AutoConfig.for_model(**config_json(recipe, ids))
    with torch.device("meta"):
        model = getattr(transformers, recipe.architecture)(config)
    halves = (model.model.visual, model.model.language_model)
    found = tuple(round(sum(p.numel() for p in half.parameters()) / 1e6, 1) for half in halves)
    assert found == PARAMETERS[name]


@pytest.mark.parametrize("name", ["qwen2-vl-tiny", "qwen3-vl-tiny"])
def test_a_made_checkpoint_has_no_fault(name: str, tmp_path: Path) -> None:
    """Both halves load, and making it again gives the same directory."""
    directory = make(name, tmp_path)
    assert inspect(directory).faults == ()
    assert make(name, tmp_path) == directory


def test_every_word_of_an_answer_is_one_token(tmp_path: Path) -> None:
    """Words begin with a blank and are letters else, so that a text tells its tokens; labels are one token each."""
    _, words = write_tokenizer(tmp_path, 4096)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    spelt = [tokenizer.decode([number]) for number in words]
    assert len(set(spelt)) == len(words)
    assert all(text[0] == " " and text[1:].isalpha() for text in spelt)
    assert [len(tokenizer(label)["input_ids"]) for label in LABELS] == [1, 1]
