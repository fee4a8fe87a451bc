"""The shipped pictures: unpicked, as their seeds draw them, and answered right."""

import json

import numpy as np
from PIL import Image

from demo.check import Asker
from demo.evaluate import scene_seeds
from demo.gallery import COUNT, FOLDER, SEED
from demo.questions import ask_all
from demo.scenes import draw_array, make_scene

LISTED = json.loads((FOLDER / "questions.json").read_text())


def test_gallery_is_what_its_seed_gives() -> None:
    """The pictures and questions are the first of the fixed seed, all of them, unchanged."""
    assert len(LISTED) == COUNT
    for seed, (name, questions) in zip(scene_seeds(SEED, COUNT), LISTED.items(), strict=True):
        scene = make_scene(seed)
        assert np.array_equal(np.asarray(Image.open(FOLDER / name)), draw_array(scene))
        assert [(q["text"], q["answer"]) for q in questions] == [(q.text, q.answer) for q in ask_all(seed, scene)]


def test_checkpoint_answers_the_gallery() -> None:
    """Each shipped question gets its shipped answer."""
    asker = Asker()
    for name, questions in LISTED.items():
        picture = Image.open(FOLDER / name)
        assert [asker(picture, q["text"]) for q in questions] == [q["answer"] for q in questions]
