"""Tokenizers of the test checkpoints: a byte-level BPE trained on some English and Chinese, with Qwen's tokens."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN_ADDED_TOKENS = ("<tool_call>", "</tool_call>", "<think>", "</think>")

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = (
    "system\nYou are a helpful assistant.\nuser\nassistant\n",
    "What is in the picture? How many red circles are there, and where is the small blue square?",
    "Is the green triangle to the left of the large yellow star? Answer yes or no.",
    "The image shows one black cat above two white dogs; a man and a woman are walking in the street.",
    "Describe this photograph in one sentence, then list every colour that you can see in it.",
    "Does this picture break the policy on violence, hate, adult content or private information?",
    "There are three apples on the table next to a cup of coffee and an open book about the sea.",
    "图片里有什么？红色的圆形有几个？蓝色的小方块在哪里？",
    "绿色三角形在黄色星星的左边吗？请回答是或者不是。",
    "请用一句话描述这张图片，然后列出你看到的所有颜色。",
    "桌子上有三个苹果、一杯咖啡和一本打开的书。",
)


def write_tokenizer(directory: Path, learned_size: int, added: tuple[str, ...], chat_template: str) -> dict[str, int]:
    """Write tokenizer.json, vocab.json, merges.txt, tokenizer_config.json and the chat template.

    `learned_size` counts bytes and merges; CONTROL_TOKENS follow them in that order, then `added`. Returns the ids of
    the tokens beyond the learned ones by name.
    """
    tokenizer = _train(learned_size)
    added_tokens = [AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS]
    added_tokens += [AddedToken(name, special=False, normalized=False) for name in added]
    tokenizer.add_tokens(added_tokens)
    tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer.model.save(str(directory))
    ids = {token.content: id_ for id_, token in tokenizer.get_added_tokens_decoder().items()}
    config = _tokenizer_config(ids, chat_template)
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": chat_template}, ensure_ascii=False))
    return ids


def _train(learned_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=learned_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _tokenizer_config(ids: dict[str, int], chat_template: str) -> dict[str, object]:
    decoder = {
        str(id_): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": name in CONTROL_TOKENS,
        }
        for name, id_ in ids.items()
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
