"""Questions: right by geometry, and never ambiguous."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from demo.questions import (
    KINDS,
    ORDER_MARGIN,
    PLACE_MARGIN,
    RELATION_MARGIN,
    Question,
    above_below,
    ask,
    ask_all,
    describe,
    left_right,
    names,
    place,
)
from demo.scenes import IMAGE_SIZE, Scene, SceneObject, make_scene

SEEDS = range(150)


def asked(kind: str) -> list[tuple[Scene, Question]]:
    """Every question of one kind over the test's scenes."""
    scenes = [make_scene(seed) for seed in SEEDS]
    pairs = [(s, q) for i, s in enumerate(scenes) for q in ask_all(i, s) if q.kind == kind]
    assert len(pairs) > 50
    return pairs


def named(scene: Scene, name: str) -> SceneObject:
    """The one object that a name in a question means, found independently of how questions name."""
    words = name.replace(" object", "").split()
    found = [o for o in scene.objects if all(word in (o.color, o.shape) for word in words)]
    assert len(found) == 1
    return found[0]


def test_there_are_at_least_eight_kinds() -> None:
    """Eleven kinds of short questions and a description."""
    assert len(KINDS) == 12


def test_a_seed_gives_the_same_questions() -> None:
    """Asking again asks the same."""
    assert ask_all(5, make_scene(5)) == ask_all(5, make_scene(5))


def test_every_kind_is_asked_often() -> None:
    """Each kind fits at least half of the scenes."""
    counts = Counter(q.kind for seed in SEEDS for q in ask_all(seed, make_scene(seed)))
    assert all(counts[kind] > len(SEEDS) / 2 for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_single_answer_is_nearly_always_right(kind: str) -> None:
    """A model that ignores the picture cannot score high in any kind."""
    answers = Counter(q.answer for _, q in asked(kind))
    assert answers.most_common(1)[0][1] < 0.7 * answers.total()


def test_counts_match_the_objects() -> None:
    """The three counting kinds count what the ground truth holds."""
    for scene, question in asked("count"):
        assert int(question.answer) == len(scene.objects)
    for kind, attribute in (("count_color", "color"), ("count_shape", "shape")):
        for scene, question in asked(kind):
            found = [getattr(o, attribute) for o in scene.objects if getattr(o, attribute) in question.text]
            assert int(question.answer) == len(found)


def test_exists_is_true_to_the_scene_and_balanced() -> None:
    """Yes means that one object has both the colour and the shape; about half the answers are yes."""
    yes = 0
    for scene, question in asked("exists"):
        truth = any(f"{o.color} {o.shape}" in question.text for o in scene.objects)
        assert question.answer == ("yes" if truth else "no")
        yes += truth
    assert 0.35 < yes / len(SEEDS) < 0.65


def test_most_absent_objects_share_a_colour_or_a_shape() -> None:
    """A no is rarely given away by a colour and shape that are both missing."""
    absent = [(s, q) for s, q in asked("exists") if q.answer == "no"]
    hard = [any(o.color in q.text or o.shape in q.text for o in s.objects) for s, q in absent]
    assert sum(hard) > 0.9 * len(hard)


def test_attribute_questions_mean_one_object() -> None:
    """The colour, shape, size and place asked for belong to the only object that the words fit."""
    patterns = {
        "color": r"colou?r is the (\w+)",
        "shape": r"the (\w+) object",
        "size": r"the ([a-z ]+?)(?: big| small|\?)",
        "where": r"the ([a-z ]+)\?",
    }
    for kind, pattern in patterns.items():
        for scene, question in asked(kind):
            match = re.search(pattern, question.text.replace("in the picture is ", ""))
            assert match is not None, question
            item = named(scene, match[1])
            truth = {"color": item.color, "shape": item.shape, "size": item.size, "where": place(item)}
            assert question.answer == truth[kind]


@pytest.mark.parametrize(("kind", "axis"), [("left_right", "x"), ("above_below", "y")])
def test_relations_match_the_geometry_with_a_margin(kind: str, axis: str) -> None:
    """The answer follows from the two centres, which are clearly apart along the axis asked about."""
    for scene, question in asked(kind):
        match = re.search(r"Is the (.+?) (?:to the )?(left|right|above|below)(?: of)? the (.+)\?", question.text)
        assert match is not None
        a, b = (getattr(named(scene, match[i]), axis) for i in (1, 3))
        assert abs(a - b) >= RELATION_MARGIN
        truth = a < b if match[2] in ("left", "above") else a > b
        assert question.answer == ("yes" if truth else "no")


def test_sides_match_the_geometry_with_a_margin() -> None:
    """Either-or questions name the side that the two centres give, clearly apart along that axis."""
    for scene, question in asked("side"):
        match = re.search(r"Is the (.+?) (left or right of|above or below) the (.+)\?", question.text)
        assert match is not None
        axis, words = ("x", ("left", "right")) if "left" in match[2] else ("y", ("above", "below"))
        a, b = (getattr(named(scene, match[i]), axis) for i in (1, 3))
        assert abs(a - b) >= RELATION_MARGIN
        assert question.answer == words[a > b]


def test_places_keep_clear_of_the_middle() -> None:
    """An object near a middle line has no place to be asked for."""
    middle = IMAGE_SIZE // 2
    assert place(SceneObject("star", "red", "small", 30, middle + PLACE_MARGIN - 1, 16)) is None
    assert place(SceneObject("star", "red", "small", 30, middle + PLACE_MARGIN, 16)) == "bottom left"


def test_descriptions_go_from_left_to_right() -> None:
    """A description names every object once, ordered by clearly different centres."""
    for scene, question in asked("describe"):
        ordered = sorted(scene.objects, key=lambda o: o.x)
        assert question.answer.split(", ") == [f"a {o.size} {o.color} {o.shape}" for o in ordered]
        assert all(b.x - a.x >= ORDER_MARGIN for a, b in pairwise(ordered))


def scene_of(*objects: SceneObject) -> Scene:
    """A scene with exactly these objects."""
    return Scene(objects, (230, 230, 230), (90, 90, 90), 0)


def test_twins_have_no_name() -> None:
    """Two objects alike in colour and shape are never asked about one by one."""
    twin = SceneObject("star", "red", "small", 30, 30, 16)
    scene = scene_of(twin, SceneObject("star", "red", "big", 120, 120, 28))
    rng = np.random.default_rng(0)
    assert names(scene, twin) == []
    assert all(ask(rng, scene, kind) is None for kind in ("color", "shape", "size", "where", "left_right"))


def test_level_objects_get_no_relation() -> None:
    """Objects at nearly the same height or column are not compared along that axis."""
    rng = np.random.default_rng(0)
    first = SceneObject("star", "red", "small", 30, 60, 16)
    level = scene_of(first, SceneObject("circle", "blue", "small", 120, 65, 16))
    stacked = scene_of(first, SceneObject("circle", "blue", "small", 35, 120, 16))
    assert above_below(rng, level) is None
    assert left_right(rng, stacked) is None
    assert describe(rng, stacked) is None
