"""Operations that a workload cannot do without, counted off a checkpoint's sizes. No torch, no clock.

Counted: the tower for each new picture; each picture's prompt prefix once, of whose last layer only keys and values are
needed; every question's own tokens, what several about a picture begin with once; and a row of every generated token
but the first. Not counted: what all prompts have before the picture, which was computed when the system was warmed up;
decoding and resizing of pictures, norms, rotations, activations, sampling, and everything around the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.checkpoints import Recipe


@dataclass(frozen=True, slots=True)
class Linear:
    """`count` products of [rows, inputs] and a weight [outputs, inputs]."""

    rows: int
    inputs: int
    outputs: int
    count: int = 1

    @property
    def operations(self) -> int:
        """Additions and multiplications."""
        return 2 * self.rows * self.inputs * self.outputs * self.count


@dataclass(frozen=True, slots=True)
class Attention:
    """`count` attentions of `queries` over `keys` tokens in each of `heads` heads, `group` of which share keys."""

    queries: int
    keys: int
    heads: int
    head_dim: int
    is_causal: bool = False
    count: int = 1
    group: int = 1

    @property
    def operations(self) -> int:
        """Additions and multiplications of both products; half of them under a causal mask."""
        full = 4 * self.queries * self.keys * self.heads * self.head_dim * self.count
        return full // 2 if self.is_causal else full


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes that have to come from memory."""

    num_bytes: int

    @property
    def operations(self) -> int:
        """None."""
        return 0


Operation = Linear | Attention | Reading


@dataclass(frozen=True, slots=True)
class Shape:
    """Questions that are answered together, in numbers.

    Attributes:
        image_tokens: Of each picture.
        prefix_tokens: Prompt tokens up to and with each picture's end.
        suffix_tokens: Of each question, what follows.
        steps: Tokens generated for each question; 0 where choices of one token are scored.
        suffix_rows: Of each question's own tokens those that no question before it about the picture begins with; none:
            all are.
        front_tokens: Of the prefix's tokens those before the picture, which are known already.
    """

    image_tokens: tuple[int, ...]
    prefix_tokens: int
    suffix_tokens: tuple[int, ...]
    steps: int
    suffix_rows: tuple[int, ...] = ()
    front_tokens: int = 0

    @property
    def rows(self) -> tuple[int, ...]:
        """Of each question, how many tokens are computed."""
        return self.suffix_rows or self.suffix_tokens


def encode(recipe: Recipe, image_tokens: int) -> list[Operation]:
    """The tower on one picture."""
    width, layers, patches = recipe.tower.width, recipe.tower.layers, 4 * image_tokens
    merged = 4 * width
    mergers = 1 + len(recipe.tower.deepstack)
    return [
        Linear(patches, 3 * 2 * recipe.patch**2, width),
        Linear(patches, width, 3 * width, layers),
        Linear(patches, width, width, layers),
        Linear(patches, width, 4 * width, layers),
        Linear(patches, 4 * width, width, layers),
        Linear(image_tokens, merged, merged, mergers),
        Linear(image_tokens, merged, recipe.text.width, mergers),
        Attention(patches, patches, recipe.tower.heads, width // recipe.tower.heads, count=layers),
    ]


def prefixes(recipe: Recipe, shape: Shape) -> list[Operation]:
    """The language model on every picture's prefix."""
    return [one for tokens in shape.image_tokens for one in _prefix(recipe, shape, tokens)]


def _prefix(recipe: Recipe, shape: Shape, image_tokens: int) -> list[Operation]:
    text = recipe.text
    sequence = shape.prefix_tokens + image_tokens
    rows = sequence - shape.front_tokens
    key_values = 2 * text.kv_heads * text.head_dim
    whole = text.layers - 1
    return [
        *_layers(recipe, rows, whole),
        Linear(rows, text.width, key_values),
        Attention(
            rows,
            sequence,
            text.heads,
            text.head_dim,
            is_causal=True,
            count=whole,
            group=text.heads // text.kv_heads,
        ),
    ]


def suffixes(recipe: Recipe, shape: Shape) -> list[Operation]:
    """The language model on every question's own tokens, the first token's logits included."""
    text = recipe.text
    rows, questions = sum(shape.rows), len(shape.suffix_tokens)
    key_values = 2 * text.kv_heads * text.head_dim
    whole = text.layers - 1
    last_rows = [
        Linear(rows, text.width, key_values),
        Linear(questions, text.width, text.heads * text.head_dim),
        *_after_attention(recipe, questions, 1),
        Linear(questions, text.width, text.vocabulary),
    ]
    return [*_layers(recipe, rows, whole), *last_rows, *_shared_attention(recipe, shape, rows, whole)]


def decoding(recipe: Recipe, shape: Shape) -> list[Operation]:
    """Every later token of every question, one row each in every step."""
    text = recipe.text
    questions, steps = len(shape.suffix_tokens), max(shape.steps - 1, 0)
    if steps == 0:
        return []
    tails = sum(tail + (steps + 1) / 2 for tail in shape.suffix_tokens)
    return [
        *_layers(recipe, questions, text.layers * steps),
        Linear(questions, text.width, text.vocabulary, steps),
        *_shared_attention(recipe, shape, questions, text.layers * steps),
        Reading(math.ceil(tails * steps * recipe.kv_token_bytes)),
    ]


def phases(recipe: Recipe, shape: Shape) -> dict[str, list[Operation]]:
    """Every operation of a burst, by phase."""
    return {
        "encode": [one for tokens in shape.image_tokens for one in encode(recipe, tokens)],
        "prefix": prefixes(recipe, shape),
        "suffix": suffixes(recipe, shape),
        "decode": decoding(recipe, shape),
    }


def operations(found: Sequence[Operation]) -> int:
    """Additions and multiplications of them all."""
    return sum(one.operations for one in found)


def _layers(recipe: Recipe, rows: int, count: int) -> list[Operation]:
    """The linears of `count` whole layers; those with the same input as one."""
    text = recipe.text
    projected = (text.heads + 2 * text.kv_heads) * text.head_dim
    return [Linear(rows, text.width, projected, count), *_after_attention(recipe, rows, count)]


def _after_attention(recipe: Recipe, rows: int, count: int) -> list[Operation]:
    text = recipe.text
    return [
        Linear(rows, text.heads * text.head_dim, text.width, count),
        Linear(rows, text.width, 2 * text.intermediate, count),
        Linear(rows, text.intermediate, text.width, count),
    ]


def _shared_attention(recipe: Recipe, shape: Shape, rows: int, count: int) -> list[Operation]:
    """Attention of all rows over the pictures' prefixes, each read once for all the rows below it."""
    text = recipe.text
    pictures = len(shape.image_tokens)
    stacked = math.ceil(rows / pictures) * (text.heads // text.kv_heads)
    return [
        Attention(stacked, shape.prefix_tokens + tokens, text.kv_heads, text.head_dim, count=count)
        for tokens in shape.image_tokens
    ]
