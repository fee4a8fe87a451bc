"""Questions about a scene, with their answers from the ground truth.

A question is only made where its answer is certain: names point at exactly one object, relations and places keep a
clear margin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from demo.scenes import COLORS, IMAGE_SIZE, SHAPES, Scene, SceneObject

RELATION_MARGIN = 24  # pixels between two centres along the axis that is asked about
PLACE_MARGIN = 12  # pixels between a centre and the picture's middle lines
ORDER_MARGIN = 10  # pixels between neighbours in a left-to-right description


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its only right answer."""

    kind: str
    text: str
    answer: str


Maker = Callable[[np.random.Generator, Scene], Question | None]


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def names(scene: Scene, item: SceneObject) -> list[str]:
    """The names that mean `item` and nothing else in the scene, most specific first."""
    options = []
    for name, same in (
        (f"{item.color} {item.shape}", lambda o: (o.color, o.shape) == (item.color, item.shape)),
        (item.shape, lambda o: o.shape == item.shape),
        (f"{item.color} object", lambda o: o.color == item.color),
    ):
        if sum(1 for o in scene.objects if same(o)) == 1:
            options.append(name)
    return options


def _name(rng: np.random.Generator, scene: Scene, item: SceneObject) -> str | None:
    options = names(scene, item)
    if not options:
        return None
    return options[0] if rng.random() < 0.75 else _pick(rng, options)


def _any(rng: np.random.Generator, scene: Scene) -> SceneObject:
    return scene.objects[int(rng.integers(len(scene.objects)))]


def count_all(rng: np.random.Generator, scene: Scene) -> Question:
    """How many objects there are."""
    text = _pick(
        rng,
        (
            "How many objects are there?",
            "How many shapes are there?",
            "How many objects are in the picture?",
            "How many things do you see?",
            "Count the objects.",
        ),
    )
    return Question("count", text, str(len(scene.objects)))


def _plural_question(rng: np.random.Generator, what: str) -> str:
    forms = ("How many {} are there?", "How many {} do you see?", "How many {} are in the picture?", "Count the {}.")
    return _pick(rng, forms).format(what)


def count_color(rng: np.random.Generator, scene: Scene) -> Question:
    """How many objects have a colour, which three times in four is present."""
    color = _any(rng, scene).color if rng.random() < 0.75 else _pick(rng, COLORS)
    found = sum(o.color == color for o in scene.objects)
    what = f"{color} {_pick(rng, ('objects', 'things', 'shapes'))}"
    return Question("count_color", _plural_question(rng, what), str(found))


def count_shape(rng: np.random.Generator, scene: Scene) -> Question:
    """How many objects have a shape, which three times in four is present."""
    shape = _any(rng, scene).shape if rng.random() < 0.75 else _pick(rng, SHAPES)
    found = sum(o.shape == shape for o in scene.objects)
    return Question("count_shape", _plural_question(rng, f"{shape}s"), str(found))


def exists(rng: np.random.Generator, scene: Scene) -> Question:
    """Whether a coloured shape is there; half the answers are no, and most of those share a colour or a shape."""
    present = {(o.color, o.shape) for o in scene.objects}
    one, other = _any(rng, scene), _any(rng, scene)
    color, shape = one.color, one.shape
    if rng.random() < 0.5:
        color, shape = _absent(rng, present, one, other)
    forms = ("Is there {}?", "Do you see {}?", "Is there {} in the picture?", "Can you see {}?")
    text = _pick(rng, forms).format(_article(f"{color} {shape}"))
    return Question("exists", text, _yes((color, shape) in present))


def _absent(
    rng: np.random.Generator, present: set[tuple[str, str]], one: SceneObject, other: SceneObject
) -> tuple[str, str]:
    """A colour and shape that no object has together: mixed from two objects, or with one half changed, or random."""
    tries = [(one.color, other.shape), (one.color, _pick(rng, SHAPES)), (_pick(rng, COLORS), one.shape)]
    start = int(rng.integers(3))
    for pair in tries[start:] + tries[:start]:
        if pair not in present:
            return pair
    while (pair := (_pick(rng, COLORS), _pick(rng, SHAPES))) in present:
        pass
    return pair


def color_of(rng: np.random.Generator, scene: Scene) -> Question | None:
    """Which colour the only object of a shape has."""
    item = _any(rng, scene)
    if sum(o.shape == item.shape for o in scene.objects) != 1:
        return None
    forms = ("What color is the {}?", "What colour is the {}?", "Which color is the {}?", "Which colour is the {}?")
    return Question("color", _pick(rng, forms).format(item.shape), item.color)


def shape_of(rng: np.random.Generator, scene: Scene) -> Question | None:
    """Which shape the only object of a colour has."""
    item = _any(rng, scene)
    if sum(o.color == item.color for o in scene.objects) != 1:
        return None
    forms = ("What shape is the {} object?", "Which shape is the {} object?", "What is the {} object?")
    return Question("shape", _pick(rng, forms).format(item.color), item.shape)


def size_of(rng: np.random.Generator, scene: Scene) -> Question | None:
    """Whether an object is big or small."""
    item = _any(rng, scene)
    name = _name(rng, scene, item)
    if name is None:
        return None
    forms = ("Is the {} big or small?", "Is the {} small or big?", "What size is the {}?", "How big is the {}?")
    return Question("size", _pick(rng, forms).format(name), item.size)


def _pair(rng: np.random.Generator, scene: Scene) -> tuple[SceneObject, SceneObject, str, str] | None:
    """Two different objects in random order, with their names."""
    if len(scene.objects) < 2:
        return None
    a, b = (scene.objects[int(i)] for i in rng.choice(len(scene.objects), size=2, replace=False))
    name_a, name_b = _name(rng, scene, a), _name(rng, scene, b)
    return None if name_a is None or name_b is None else (a, b, name_a, name_b)


def left_right(rng: np.random.Generator, scene: Scene) -> Question | None:
    """Whether one object is left (or right) of another, at least RELATION_MARGIN apart."""
    pair = _pair(rng, scene)
    if pair is None or abs(pair[0].x - pair[1].x) < RELATION_MARGIN:
        return None
    a, b, name_a, name_b = pair
    side = _pick(rng, ("left", "right"))
    forms = ("Is the {} {} of the {}?", "Is the {} to the {} of the {}?")
    truth = (a.x < b.x) == (side == "left")
    return Question("left_right", _pick(rng, forms).format(name_a, side, name_b), _yes(truth))


def above_below(rng: np.random.Generator, scene: Scene) -> Question | None:
    """Whether one object is above (or below) another, at least RELATION_MARGIN apart."""
    pair = _pair(rng, scene)
    if pair is None or abs(pair[0].y - pair[1].y) < RELATION_MARGIN:
        return None
    a, b, name_a, name_b = pair
    side = _pick(rng, ("above", "below"))
    truth = (a.y < b.y) == (side == "above")
    return Question("above_below", f"Is the {name_a} {side} the {name_b}?", _yes(truth))


def side(rng: np.random.Generator, scene: Scene) -> Question | None:
    """On which side of another object one is, where they are at least RELATION_MARGIN apart that way."""
    pair = _pair(rng, scene)
    if pair is None:
        return None
    a, b, name_a, name_b = pair
    across = rng.random() < 0.5
    distance = a.x - b.x if across else a.y - b.y
    if abs(distance) < RELATION_MARGIN:
        return None
    text = (
        f"Is the {name_a} left or right of the {name_b}?" if across else f"Is the {name_a} above or below the {name_b}?"
    )
    before, after = ("left", "right") if across else ("above", "below")
    return Question("side", text, before if distance < 0 else after)


def place(scene_object: SceneObject) -> str | None:
    """The quarter of the picture that holds the centre, or None within PLACE_MARGIN of a middle line."""
    dx, dy = scene_object.x - IMAGE_SIZE / 2, scene_object.y - IMAGE_SIZE / 2
    if min(abs(dx), abs(dy)) < PLACE_MARGIN:
        return None
    return f"{'top' if dy < 0 else 'bottom'} {'left' if dx < 0 else 'right'}"


def where(rng: np.random.Generator, scene: Scene) -> Question | None:
    """In which quarter an object is."""
    item = _any(rng, scene)
    name, answer = _name(rng, scene, item), place(item)
    if name is None or answer is None:
        return None
    forms = ("Where is the {}?", "Where do you see the {}?", "Where in the picture is the {}?")
    return Question("where", _pick(rng, forms).format(name), answer)


def describe(rng: np.random.Generator, scene: Scene) -> Question | None:
    """All objects from left to right, where neighbours are at least ORDER_MARGIN apart."""
    ordered = sorted(scene.objects, key=lambda o: o.x)
    if any(b.x - a.x < ORDER_MARGIN for a, b in pairwise(ordered)):
        return None
    text = _pick(rng, ("Describe the picture.", "Describe the image.", "What do you see?", "What is in the picture?"))
    return Question("describe", text, ", ".join(f"a {o.size} {o.color} {o.shape}" for o in ordered))


MAKERS: dict[str, Maker] = {
    "count": count_all,
    "count_color": count_color,
    "count_shape": count_shape,
    "exists": exists,
    "color": color_of,
    "shape": shape_of,
    "size": size_of,
    "left_right": left_right,
    "above_below": above_below,
    "side": side,
    "where": where,
    "describe": describe,
}
KINDS = tuple(MAKERS)


def ask(rng: np.random.Generator, scene: Scene, kind: str, tries: int = 6) -> Question | None:
    """A question of `kind` about the scene, or None where none with a certain answer was found."""
    for _ in range(tries):
        question = MAKERS[kind](rng, scene)
        if question is not None:
            return question
    return None


def ask_all(seed: int, scene: Scene) -> list[Question]:
    """One question of each kind that the scene allows, in KINDS' order."""
    rng = np.random.default_rng([seed, 1])
    asked = (ask(rng, scene, kind, tries=20) for kind in KINDS)
    return [question for question in asked if question is not None]
