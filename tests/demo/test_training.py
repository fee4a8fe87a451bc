"""The training's own forward, labels and loop agree with what the checkpoint will be asked in earnest."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from demo.batches import IGNORE, Packer, QuestionBatch, image_batch, patchify, question_batch, token_labels
from demo.model import IMAGE_TOKENS, TrainingForward, build_config, build_image_processor
from demo.questions import KINDS, Question, ask_all
from demo.scenes import COLORS, SHAPES, Scene, SceneObject, draw, draw_array, make_scene
from demo.tokenizer import IM_END, IM_START, IMAGE_PAD, SYSTEM_MESSAGES, VISION_END, VISION_START, build_tokenizer

TOKENIZER = build_tokenizer()
SYSTEMS = [None, SYSTEM_MESSAGES[0]]


@pytest.fixture(scope="module")
def forward() -> TrainingForward:
    """A random model of the demo's configuration."""
    torch.manual_seed(0)
    return TrainingForward(Qwen2VLForConditionalGeneration(build_config(TOKENIZER)).float().eval())


def prompt(question: Question, system: str | None) -> str:
    """The question's whole text as the chat template and the answer make it."""
    head = f"{IM_START}system\n{system}{IM_END}\n" if system else ""
    image = VISION_START + IMAGE_PAD * IMAGE_TOKENS + VISION_END
    tail = f"{IM_END}\n{IM_START}assistant\n{question.answer}{IM_END}"
    return f"{head}{IM_START}user\n{image}{question.text}{tail}"


def packed(scenes: list[Scene]) -> tuple[list[list[Question]], QuestionBatch]:
    """Every question about each scene, packed on the scene's prefix."""
    packer = Packer(TOKENIZER)
    questions = [ask_all(seed, scene) for seed, scene in enumerate(scenes)]
    turns = [[[packer.turn(question, question.text)] for question in row] for row in questions]
    return questions, packer.pack(list(SYSTEMS), turns)


def test_patches_equal_the_image_processors() -> None:
    """The fast patches are the processor's, bit for bit, in its order."""
    scene = make_scene(4)
    official = build_image_processor()(images=[draw(scene)], return_tensors="np")["pixel_values"]
    assert np.array_equal(official.reshape(-1, 3, 2, 196)[:, :, 0].reshape(-1, 588), patchify(draw_array(scene)))


@torch.inference_mode()
def test_packed_questions_equal_single_prompts(forward: TrainingForward) -> None:
    """Every answer token's logits are those of transformers on that question's own prompt."""
    scenes = [make_scene(5), make_scene(6)]
    questions, batch = packed(scenes)
    tokens = forward.encode(image_batch(scenes).patches)
    ours = forward.answer_logits(tokens, batch.input_ids, batch.positions, batch.mask, batch.targets)
    place = 0
    for scene, system, row in zip(scenes, SYSTEMS, questions, strict=True):
        pixels = build_image_processor()(images=[draw(scene)], return_tensors="pt")
        for question in row:
            ids = torch.tensor([TOKENIZER.encode(prompt(question, system))])
            types = (ids == forward.model.config.image_token_id).long()
            whole = forward.model(input_ids=ids, mm_token_type_ids=types, **pixels).logits[0]
            size = len(TOKENIZER.encode(question.answer)) + 1
            assert ids[0, -size:].tolist() == batch.labels[place : place + size].tolist()
            torch.testing.assert_close(ours[place : place + size], whole[-size - 1 : -1], atol=1e-4, rtol=1e-4)
            place += size
    assert place == len(batch.labels)


def test_token_labels_mark_the_object() -> None:
    """The image token under an object's centre carries its shape, colour, size and place; far ones are background."""
    item = SceneObject("star", "purple", "big", 42, 98, 28)
    labels, xy = token_labels(Scene((item,), (230, 230, 230), (90, 90, 90), 0))
    centre = (98 // 28) * 6 + 42 // 28
    assert labels[:, centre].tolist() == [1 + SHAPES.index("star"), COLORS.index("purple"), 1, 1]
    assert xy[centre].tolist() == pytest.approx([-0.5, 1 / 6], abs=1e-6)
    assert labels[:, 5].tolist() == [0, IGNORE, IGNORE, 0]
    assert labels[3].sum() == 1


def test_random_batches_hold_every_kind() -> None:
    """A training batch asks all kinds, and labels end each answer with the end token."""
    rng = np.random.default_rng(0)
    batch = question_batch(rng, Packer(TOKENIZER), [make_scene(s) for s in range(8)], {}, per_image=12)
    assert {KINDS[kind] for kind in batch.kinds} == set(KINDS)
    assert (batch.labels == TOKENIZER.convert_tokens_to_ids(IM_END)).sum() == len(batch.kinds)


def train(folder: Path, minutes: str) -> str:
    """Run the training on one process with tiny steps; its output."""
    command = [sys.executable, "-m", "demo.train", "--processes", "1", "--images", "2", "--minutes", minutes]
    places = ["--work", str(folder / "work"), "--output", str(folder / "checkpoint")]
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=True)
    return done.stdout


def test_training_writes_a_checkpoint_and_resumes(tmp_path: Path) -> None:
    """An interrupted training goes on from its last step, and leaves a checkpoint that loads."""
    train(tmp_path, "0.02")
    first = json.loads((tmp_path / "work" / "state.json").read_text())
    train(tmp_path, "0.15")
    second = json.loads((tmp_path / "work" / "state.json").read_text())
    assert second["step"] > first["step"] > 0
    _, info = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
