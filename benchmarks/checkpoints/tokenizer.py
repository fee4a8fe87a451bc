"""A tokenizer of any size whose tokens spell words, so that an answer's text tells its tokens.

Its merges are not learnt but enumerated: letters make pairs, a blank and a pair a short word, a short word and a pair a
word of four letters, until the vocabulary is full. The weights let a greedy answer choose none but tokens that begin
with a blank: then equal texts are equal tokens.
"""

import itertools
import json
import string
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

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
BLANK = "Ġ"
# Labels of scored questions: one token each.
LABELS = ("yes", "no")
# Rows of the embedding beyond the tokenizer's, as on the hub.
SPARE_ROWS = 64

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- if messages[0].role != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' ~ message.role ~ '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if 'text' in part -%}{{- part.text -}}"
    "{%- else -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def write_tokenizer(directory: Path, vocabulary: int) -> tuple[dict[str, int], range]:
    """Writes every tokenizer file for an embedding of `vocabulary` rows.

    Returns:
        The ids of the special tokens by name, and the ids of the words that an answer may be made of.
    """
    learned = vocabulary - len(CONTROL_TOKENS) - SPARE_ROWS
    pieces, merges, first_word = _enumerate(learned)
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS])
    tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer.model.save(str(directory))
    ids = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    (directory / "tokenizer_config.json").write_text(json.dumps(_config(ids), indent=2))
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    return ids, range(first_word, learned)


def _enumerate(size: int) -> tuple[list[str], list[tuple[str, str]], int]:
    """Tokens, merges and the place of the first word among the tokens."""
    letters = string.ascii_lowercase
    pairs = [one + two for one, two in itertools.product(letters, letters)]
    merges = [*itertools.product(letters, letters), ("y", "es")]
    words = [(BLANK, pair) for pair in pairs]
    longer = ((BLANK + one, two) for one, two in itertools.product(pairs, pairs))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    first_word = len(alphabet) + len(merges)
    words += itertools.islice(longer, max(size - first_word - len(words), 0))
    merges += words[: size - first_word]
    return [*alphabet, *("".join(merge) for merge in merges)], merges, first_word


def _config(ids: dict[str, int]) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": name, **flags} for name, number in ids.items()},
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
