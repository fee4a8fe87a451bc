"""The shipped checkpoint: complete, small, laid out as on the hub, and right."""

import json

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from demo.check import CHECKPOINT, Asker, check
from demo.evaluate import summary
from demo.scenes import draw, make_scene

REQUIRED = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
IMAGE = {"type": "image"}


def chat(messages: list[dict[str, object]], add_generation_prompt: bool = True) -> str:
    """The messages as the checkpoint's template writes them."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))


def test_directory_is_complete_and_small() -> None:
    """Every file of a hub checkpoint is there, readable, and all together are at most 12 MB."""
    assert {name for name in REQUIRED if not (CHECKPOINT / name).is_file()} == set()
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 12e6


def test_nothing_but_json_text_and_safetensors() -> None:
    """No file of the checkpoint can hold code or pickles."""
    assert {path.suffix for path in CHECKPOINT.iterdir()} <= {".json", ".jinja", ".safetensors"}


def test_keys_are_laid_out_as_on_the_hub() -> None:
    """Vision keys start with visual., language keys with model., the head is tied, and all is float32."""
    with safe_open(CHECKPOINT / "model.safetensors", framework="pt") as file:
        keys = list(file.keys())
        kinds = {file.get_slice(key).get_dtype() for key in keys}
    assert {key.split(".")[0] for key in keys} == {"visual", "model"}
    assert not any(key.startswith(("model.visual", "model.language_model")) for key in keys)
    assert kinds == {"F32"}


def test_generation_ends_at_qwens_two_end_tokens() -> None:
    """Both <|im_end|> and <|endoftext|> stop an answer, and decoding is greedy."""
    config = json.loads((CHECKPOINT / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert tokenizer.convert_ids_to_tokens(config["eos_token_id"]) == ["<|im_end|>", "<|endoftext|>"]
    assert config["do_sample"] is False


def test_config_names_nothing_of_the_machine() -> None:
    """No path of the training machine is left in a text file."""
    for path in CHECKPOINT.glob("*.json"):
        text = path.read_text()
        assert "/work" not in text
        assert "/home" not in text
        assert "/tmp" not in text


@pytest.mark.parametrize("text", ["Is there a red star?", "héllo 你好 🙂\t\n  x=1", "", "a\x00b"])
def test_tokenizer_encodes_any_text(text: str) -> None:
    """Any text survives being encoded and decoded."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_answer_words_are_short() -> None:
    """Yes and no start with different tokens and are one token each."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    yes, no = tokenizer.encode("yes"), tokenizer.encode("no")
    assert len(yes) == len(no) == 1
    assert yes != no


def test_template_writes_an_image_question() -> None:
    """The prompt of one picture and one question is Qwen2-VL's, without a system message of its own."""
    content = [IMAGE, {"type": "text", "text": "How many?"}]
    assert chat([{"role": "user", "content": content}]) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_template_writes_systems_turns_and_several_images() -> None:
    """A system message, string contents, two pictures and an earlier answer all keep their places."""
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [IMAGE, IMAGE, {"type": "text", "text": "Same?"}]},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "Sure?"},
    ]
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert chat(messages, add_generation_prompt=False) == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{image}{image}Same?<|im_end|>\n"
        "<|im_start|>assistant\nno<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
    )


def test_checkpoint_answers_held_out_scenes() -> None:
    """Plain transformers, greedy, is right at least 98 times in 100 on scenes the training cannot have seen."""
    assert summary(900, 20, check(Asker(), seed=900, images=20))["accuracy"] >= 0.98


def test_system_message_does_not_disturb() -> None:
    """A system message in front leaves the answers right."""
    outcomes = check(Asker(), seed=901, images=5, system="You are a helpful assistant.")
    assert summary(901, 5, outcomes)["accuracy"] >= 0.95


def test_images_of_another_size_are_handled() -> None:
    """A picture twice as large is answered with words, not refused."""
    answer = Asker()(draw(make_scene(1)).resize((336, 336)), "How many objects are there?")
    assert answer.strip()
