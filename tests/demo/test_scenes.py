"""Scenes: repeatable, within the frame, clear of each other."""

from itertools import combinations
from math import hypot

import numpy as np
import pytest

from demo.scenes import IMAGE_SIZE, SHAPES, SIZES, SceneObject, draw, draw_array, make_scene, object_mask

SEEDS = range(200)


def test_a_seed_gives_the_same_scene_and_pixels() -> None:
    """Two runs of one seed agree in ground truth and in every pixel."""
    assert make_scene(11) == make_scene(11)
    assert np.array_equal(draw_array(make_scene(11)), draw_array(make_scene(11)))


def test_seeds_give_different_scenes() -> None:
    """Neighbouring seeds do not repeat a scene."""
    assert len({make_scene(seed).objects for seed in SEEDS}) == len(SEEDS)


def test_picture_is_one_processor_step() -> None:
    """A picture is RGB and 168 x 168, a multiple of 28, so the processor leaves its pixels alone."""
    picture = draw(make_scene(3))
    assert (picture.mode, picture.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    assert IMAGE_SIZE % 28 == 0


def test_scenes_hold_one_to_four_objects() -> None:
    """Every number of objects from one to four occurs, and no other."""
    assert {len(make_scene(seed).objects) for seed in SEEDS} == {1, 2, 3, 4}


def test_objects_do_not_overlap() -> None:
    """No pixel is covered by two objects."""
    for seed in SEEDS:
        for a, b in combinations(make_scene(seed).objects, 2):
            assert hypot(a.x - b.x, a.y - b.y) > a.reach + b.reach
            assert not np.any((object_mask(a) > 0) & (object_mask(b) > 0))


@pytest.mark.parametrize("shape", SHAPES)
def test_outline_stays_within_reach(shape: str) -> None:
    """No covered pixel is farther from the centre than the object's reach says."""
    item = SceneObject(shape, "red", "big", 84, 84, 29)
    rows, columns = np.nonzero(object_mask(item) > 0.5)
    farthest = np.hypot(columns + 0.5 - item.x, rows + 0.5 - item.y).max()
    assert item.reach - 4 < farthest <= item.reach + 1


def test_objects_stay_inside_the_frame() -> None:
    """Nothing is drawn on or over the picture's edge."""
    for seed in SEEDS:
        for item in make_scene(seed).objects:
            mask = object_mask(item)
            mask[4:-4, 4:-4] = 0
            assert not mask.any()


def test_big_is_clearly_bigger_than_small() -> None:
    """The smallest big object's radius is at least 1.4 times the biggest small one's."""
    radii = {size: [o.radius for s in SEEDS for o in make_scene(s).objects if o.size == size] for size in SIZES}
    assert min(radii["big"]) >= 1.4 * max(radii["small"])
