"""The test checkpoints are what the other tests take them for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer

from tests import families
from tests.families import oracle


@pytest.fixture(params=families.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_equal_arguments_write_equal_files(family: str, tmp_path: Path) -> None:
    """Byte for byte, and another seed other weights."""
    one, two, other = (families.make(family, tmp_path / str(i), seed=i // 2) for i in range(3))
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (two / path.name).read_bytes()
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_the_keys_are_the_hubs(family: str, tmp_path: Path) -> None:
    """qwen2 families write `visual.*` and `model.layers.*`, qwen3 families the nested names."""
    names = load_file(families.make(family, tmp_path) / "model.safetensors").keys()
    tower, text = (
        ("visual.", "model.layers.") if family.startswith("qwen2") else ("model.visual.", "model.language_model.")
    )
    assert any(name.startswith(tower) for name in names)
    assert any(name.startswith(text) for name in names)


def test_greedy_answers_depend_on_the_question_and_the_image(family: str, tmp_path: Path) -> None:
    """The whole model loads cleanly, and each prompt has an answer of its own, with varied tokens."""
    model_dir = families.make(family, tmp_path)
    prompts = [("What?", 0), ("Where?", 0), ("图片里有什么？", 0)]
    answers = {oracle.generate(model_dir, text, max_new_tokens=12).tokens for text, _ in prompts}
    answers |= {oracle.generate(model_dir, "What?", [oracle.picture(i)], max_new_tokens=12).tokens for i in range(3)}
    assert len(answers) == 6
    assert len({token for answer in answers for token in answer}) > 20


def test_choices_have_logprobs_of_their_own(family: str, tmp_path: Path) -> None:
    """Each is a log-probability, and they differ."""
    logprobs = oracle.choice_logprobs(families.make(family, tmp_path), "Is it?", ["yes", "no"], [oracle.picture(1)])
    assert all(value < 0 for value in logprobs)
    assert logprobs[0] != logprobs[1]


def test_the_small_files_load_offline(family: str, tmp_path: Path) -> None:
    """Tokenizer, image processor and chat template, the latter with a system turn where the hub's has one."""
    model_dir = families.make(family, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    text = "It's 12 红色 apples.<|im_end|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    prompt = tokenizer.apply_chat_template(oracle.question("hi", 1), tokenize=False, add_generation_prompt=True)
    assert prompt.count("<|vision_start|><|image_pad|><|vision_end|>hi<|im_end|>") == 1
    assert prompt.startswith("<|im_start|>system") == family.startswith("qwen2")
    processor = AutoImageProcessor.from_pretrained(model_dir)
    assert processor.patch_size == (14 if family.startswith("qwen2") else 16)


def test_windows_are_in_use(tmp_path: Path) -> None:
    """An ordinary test picture is larger than one attention window of the qwen2_5_vl tower: wider windows show."""
    model_dir = families.make("qwen2_5_vl", tmp_path)
    narrow = oracle.Oracle(model_dir)
    path = model_dir / "config.json"
    path.write_text(path.read_text().replace('"window_size": 56', '"window_size": 1120'))
    wide = oracle.Oracle(model_dir)
    prompt = oracle.question("x", 1), [oracle.picture(1)]
    assert not torch.allclose(narrow.logits(*prompt), wide.logits(*prompt), atol=0.1)
