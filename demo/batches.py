"""Training batches: pictures as patches, labels for each image token, and questions packed on each picture's prefix."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from demo.model import GRID, IMAGE_TOKENS, MERGE, PATCH
from demo.questions import KINDS, Question, ask
from demo.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES, Scene, draw_array, make_scene, object_mask
from demo.tokenizer import IM_END, IM_START, IMAGE_PAD, SYSTEM_MESSAGES, VISION_END, VISION_START

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
_CELLS = GRID // MERGE  # image tokens a side
_CELL = PATCH * MERGE  # pixels a side of one image token
IGNORE = -100  # label of an image token that an object only grazes


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Pictures and what each image token shows."""

    patches: Tensor  # [B, GRID * GRID, 3 * PATCH * PATCH], normalised
    shape: Tensor  # [B, IMAGE_TOKENS], 0 for background, IGNORE where unclear
    color: Tensor  # [B, IMAGE_TOKENS], IGNORE off objects
    size: Tensor  # [B, IMAGE_TOKENS], IGNORE off objects
    centre: Tensor  # [B, IMAGE_TOKENS], 1 where an object's centre is
    xy: Tensor  # [B, IMAGE_TOKENS, 2], the object's centre, -1 to 1


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """Rows of prefix + questions, and the places whose next token is an answer's."""

    input_ids: Tensor  # [B, L]
    positions: Tensor  # [3, B, L]
    mask: Tensor  # [B, 1, L, L], true where a token may look
    targets: Tensor  # [N] flat places in [B * L]
    labels: Tensor  # [N] the token to say there
    owner: Tensor  # [N] which question (0 .. len(kinds) - 1)
    kinds: list[int]  # index in KINDS of each question


def patchify(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The image processor's patches without the repeated frame, [GRID * GRID, 3 * PATCH * PATCH]."""
    normal = (pixels.astype(np.float32) / np.float32(255) - _MEAN) / _STD
    parts = normal.reshape(_CELLS, MERGE, PATCH, _CELLS, MERGE, PATCH, 3)
    return parts.transpose(0, 3, 1, 4, 6, 2, 5).reshape(GRID * GRID, 3 * PATCH * PATCH)


def token_labels(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Shape, colour, size and is-centre of each image token [4, IMAGE_TOKENS], and the centre's, [IMAGE_TOKENS, 2]."""
    labels = np.full((4, _CELLS, _CELLS), IGNORE, dtype=np.int64)
    labels[0] = labels[3] = 0
    xy = np.zeros((_CELLS, _CELLS, 2), dtype=np.float32)
    best = np.full((_CELLS, _CELLS), 0.02, dtype=np.float32)
    for item in scene.objects:
        cover = object_mask(item).reshape(_CELLS, _CELL, _CELLS, _CELL).mean(axis=(1, 3))
        wins = cover > best
        clear = wins & (cover > 0.08)
        labels[0][wins] = IGNORE
        for row, value in (
            (0, 1 + SHAPES.index(item.shape)),
            (1, COLORS.index(item.color)),
            (2, SIZES.index(item.size)),
        ):
            labels[row][clear] = value
        labels[3, item.y // _CELL, item.x // _CELL] = 1
        xy[clear] = (2 * item.x / IMAGE_SIZE - 1, 2 * item.y / IMAGE_SIZE - 1)
        best = np.maximum(best, cover)
    return labels.reshape(4, IMAGE_TOKENS), xy.reshape(IMAGE_TOKENS, 2)


def image_batch(scenes: list[Scene]) -> ImageBatch:
    """Draw and label the scenes."""
    patches = torch.from_numpy(np.stack([patchify(draw_array(scene)) for scene in scenes]))
    labels, xy = zip(*(token_labels(scene) for scene in scenes), strict=True)
    shape, color, size, centre = torch.from_numpy(np.stack(labels, axis=1))
    return ImageBatch(patches, shape, color, size, centre, torch.from_numpy(np.stack(xy)))


@dataclass(frozen=True, slots=True)
class Turn:
    """A question's tokens, from the question to the answer's end, and where the answer's tokens are."""

    ids: list[int]
    answer_at: range  # indices in ids
    kind: int


class Packer:
    """Makes QuestionBatches with a tokenizer's ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self._image_ids = self.ids(VISION_START) + self.ids(IMAGE_PAD) * IMAGE_TOKENS + self.ids(VISION_END)
        self._vision_start = self.ids(VISION_START)[0]

    def ids(self, text: str) -> list[int]:
        """The tokens of one piece of the prompt."""
        if text not in self._cache:
            self._cache[text] = list(self._tokenizer.encode(text, add_special_tokens=False))
        return self._cache[text]

    def prefix(self, system: str | None) -> list[int]:
        """Everything before the question."""
        head = f"{IM_START}system\n{system}{IM_END}\n" if system else ""
        return self.ids(f"{head}{IM_START}user\n") + self._image_ids

    def turn(self, question: Question, text: str) -> Turn:
        """The question, worded as `text`, with its answer."""
        asked = self.ids(text) + self.ids(f"{IM_END}\n{IM_START}assistant\n")
        answer = self.ids(question.answer) + self.ids(IM_END)
        return Turn(asked + answer, range(len(asked), len(asked) + len(answer)), KINDS.index(question.kind))

    def _prefix_positions(self, prefix: list[int]) -> NDArray[np.int64]:
        """Qwen2-VL's (t, h, w) of the prefix, [3, len(prefix)]."""
        start = prefix.index(self._vision_start) + 1
        rows, columns = np.divmod(np.arange(IMAGE_TOKENS), _CELLS)
        text = np.tile(np.arange(start), (3, 1))
        image = start + np.stack([np.zeros(IMAGE_TOKENS, dtype=np.int64), rows, columns])
        end = np.full((3, 1), start + _CELLS)
        return np.concatenate([text, image, end], axis=1)

    def pack(self, systems: list[str | None], turns: list[list[list[Turn]]]) -> QuestionBatch:
        """One row a picture: its prefix, then blocks of one or more turns; a block sees only the prefix and itself."""
        rows = [self._row(system, blocks) for system, blocks in zip(systems, turns, strict=True)]
        count, length = len(rows), max(len(row[0]) for row in rows)
        ids = np.zeros((count, length), dtype=np.int64)
        positions = np.zeros((3, count, length), dtype=np.int64)
        block = np.full((count, length), -1, dtype=np.int64)
        targets: list[int] = []
        labels: list[int] = []
        owner: list[int] = []
        kinds: list[int] = []
        for index, (row_ids, row_positions, row_block, answers) in enumerate(rows):
            ids[index, : len(row_ids)] = row_ids
            positions[:, index, : len(row_ids)] = row_positions
            block[index, : len(row_ids)] = row_block
            for kind, places in answers:
                targets.extend(index * length + place - 1 for place in places)
                labels.extend(row_ids[place] for place in places)
                owner.extend([len(kinds)] * len(places))
                kinds.append(kind)
        same = (block[:, None, :] == 0) | (block[:, None, :] == block[:, :, None])
        mask = same & np.tril(np.ones((length, length), dtype=bool))
        return QuestionBatch(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            torch.from_numpy(mask).unsqueeze(1),
            torch.tensor(targets),
            torch.tensor(labels),
            torch.tensor(owner),
            kinds,
        )

    def _row(
        self, system: str | None, blocks: list[list[Turn]]
    ) -> tuple[list[int], NDArray[np.int64], list[int], list[tuple[int, list[int]]]]:
        """ids, positions [3, n], block numbers and (kind, answer places) of one picture."""
        ids = self.prefix(system)
        parts = [self._prefix_positions(ids)]
        first = int(parts[0][0, -1]) + 1
        numbers = [0] * len(ids)
        ids = list(ids)
        answers: list[tuple[int, list[int]]] = []
        between = self.ids(f"\n{IM_START}user\n")
        for number, turns in enumerate(blocks, start=1):
            begin = len(ids)
            for index, turn in enumerate(turns):
                if index:
                    ids.extend(between)
                answers.append((turn.kind, [len(ids) + place for place in turn.answer_at]))
                ids.extend(turn.ids)
            size = len(ids) - begin
            numbers.extend([number] * size)
            parts.append(np.tile(np.arange(first, first + size), (3, 1)))
        return ids, np.concatenate(parts, axis=1), numbers, answers


def vary(rng: np.random.Generator, text: str) -> str:
    """The wording a user might type: sometimes without capitals or the final mark."""
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    return text.rstrip("?.") if rng.random() < 0.08 else text


def random_scenes(rng: np.random.Generator, count: int, max_objects: int) -> list[Scene]:
    """Training scenes; their seeds are far above any that evaluation uses."""
    return [make_scene(int(seed), max_objects) for seed in rng.integers(2**32, 2**48, size=count)]


def _is_mirrored(question: Question) -> bool:
    """Whether a relation is asked for in the direction that the curriculum adds second."""
    return question.kind == "left_right" and " right " in question.text


def question_batch(
    rng: np.random.Generator, packer: Packer, scenes: list[Scene], weights: Mapping[str, float], per_image: int
) -> QuestionBatch:
    """About `per_image` questions on each scene, kinds drawn by weight; one in ten rows has a system message.

    `weights` may also hold "one_sided", the share of right-of questions to leave out while left-of is new.
    """
    chance = np.array([weights.get(kind, 1.0) for kind in KINDS])
    chance /= chance.sum()
    systems: list[str | None] = []
    rows: list[list[list[Turn]]] = []
    for scene in scenes:
        systems.append(SYSTEM_MESSAGES[int(rng.integers(len(SYSTEM_MESSAGES)))] if rng.random() < 0.1 else None)
        asked = (ask(rng, scene, KINDS[int(k)]) for k in rng.choice(len(KINDS), size=per_image, p=chance))
        kept = [
            q for q in asked if q is not None and not (_is_mirrored(q) and rng.random() < weights.get("one_sided", 0))
        ]
        turns = [packer.turn(q, vary(rng, q.text)) for q in kept]
        blocks = [[turn] for turn in turns]
        if len(blocks) > 2 and rng.random() < 0.2:
            blocks = [blocks[0] + blocks[1], *blocks[2:]]
        rows.append(blocks)
    return packer.pack(systems, rows)
