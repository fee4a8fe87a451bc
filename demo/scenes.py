"""Synthetic scenes: what is in them, where, and how they are drawn.

A scene is 168 x 168 pixels, so Qwen2-VL's processor cuts it into 12 x 12 patches of 14 pixels and merges them 2 x 2
into 36 image tokens. Everything follows from a seed.
"""

from dataclasses import dataclass
from functools import cache
from math import cos, hypot, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

IMAGE_SIZE = 168
SHAPES = ("circle", "square", "triangle", "star")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SIZES = ("small", "big")
MAX_OBJECTS = 4

_RGB = {
    "red": (214, 34, 40),
    "green": (36, 160, 62),
    "blue": (38, 84, 214),
    "yellow": (244, 214, 30),
    "purple": (138, 46, 168),
    "orange": (246, 132, 18),
}
_RADII = {"small": (16, 18), "big": (27, 30)}  # pixels, both ends included
_REACH = {"circle": 1.0, "square": 1.27, "triangle": 1.36, "star": 1.25}  # farthest point of a shape / its radius
_FRAME = 4  # pixels: a thin frame, which also tells the tower where the borders are
_GAP = 4  # pixels kept free between two objects' outlines
_SUPERSAMPLE = 4

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One drawn object."""

    shape: str
    color: str
    size: str
    x: int  # centre, pixels from the left
    y: int  # centre, pixels from the top
    radius: int  # pixels; the circle of about equal area

    @property
    def reach(self) -> float:
        """Distance in pixels from the centre to the farthest point of the outline."""
        return self.radius * _REACH[self.shape]


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture's ground truth."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]  # RGB
    frame: tuple[int, int, int]  # RGB
    noise_seed: int


def make_scene(seed: int, max_objects: int = MAX_OBJECTS) -> Scene:
    """The scene that belongs to `seed`, with one to `max_objects` objects that do not overlap."""
    rng = np.random.default_rng(seed)
    wanted = int(rng.choice([1, 2, 3, 4], p=[0.08, 0.24, 0.34, 0.34]))
    objects: list[SceneObject] = []
    for _ in range(min(wanted, max_objects)):
        placed = _place(rng, objects)
        if placed is not None:
            objects.append(placed)
    base = rng.integers(216, 246, size=3)
    dark = int(rng.integers(70, 130))
    return Scene(
        objects=tuple(objects),
        background=(int(base[0]), int(base[1]), int(base[2])),
        frame=(dark, dark, dark),
        noise_seed=int(rng.integers(2**31)),
    )


def _place(rng: np.random.Generator, others: list[SceneObject]) -> SceneObject | None:
    """A random object clear of `others`, or None where 60 random tries found no room."""
    shape, color, size = (str(rng.choice(values)) for values in (SHAPES, COLORS, SIZES))
    low, high = _RADII[size]
    radius = int(rng.integers(low, high + 1))
    margin = int(radius * _REACH[shape]) + _FRAME + 2
    for _ in range(60):
        x, y = (int(v) for v in rng.integers(margin, IMAGE_SIZE - margin + 1, size=2))
        candidate = SceneObject(shape, color, size, x, y, radius)
        if all(hypot(x - o.x, y - o.y) >= candidate.reach + o.reach + _GAP for o in others):
            return candidate
    return None


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of IMAGE_SIZE x IMAGE_SIZE pixels."""
    return Image.fromarray(draw_array(scene))


def draw_array(scene: Scene) -> Pixels:
    """The scene's pixels, [IMAGE_SIZE, IMAGE_SIZE, 3]."""
    rng = np.random.default_rng(scene.noise_seed)
    canvas = _paper(scene)
    for item in scene.objects:
        color = np.clip(np.array(_RGB[item.color]) + rng.integers(-10, 11, size=3), 0, 255)
        alpha = object_mask(item)[:, :, None]
        canvas = canvas * (1 - alpha) + color.astype(np.float32) * alpha
    canvas += rng.integers(-3, 4, size=canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _paper(scene: Scene) -> NDArray[np.float32]:
    """Background with a soft light from the top left, inside a thin frame."""
    ramp = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    canvas = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    canvas[:] = scene.background
    canvas -= 7 * ramp[:, None, None]
    canvas -= 5 * ramp[None, :, None]
    for edge in (slice(0, _FRAME), slice(-_FRAME, None)):
        canvas[edge] = scene.frame
        canvas[:, edge] = scene.frame
    return canvas


def object_mask(item: SceneObject) -> NDArray[np.float32]:
    """How much of each pixel the object covers, 0 to 1, [IMAGE_SIZE, IMAGE_SIZE]."""
    stamp = _stamp(item.shape, item.radius)
    half = stamp.shape[0] // 2
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    mask[item.y - half : item.y + half, item.x - half : item.x + half] = stamp
    return mask


@cache
def _stamp(shape: str, radius: int) -> NDArray[np.float32]:
    """The shape alone, antialiased, centred in an even-sided square array."""
    half = int(radius * _REACH[shape]) + 2
    scale = _SUPERSAMPLE
    large = Image.new("L", (2 * half * scale, 2 * half * scale), 0)
    points = [((half + px) * scale, (half + py) * scale) for px, py in _outline(shape, radius)]
    ImageDraw.Draw(large).polygon(points, fill=255)
    small = large.resize((2 * half, 2 * half), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def _outline(shape: str, radius: int) -> list[tuple[float, float]]:
    """The outline's points in pixels from the centre."""
    if shape == "circle":
        return _ring(radius, 64)
    if shape == "square":
        return [(sx * 0.89 * radius, sy * 0.89 * radius) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    if shape == "triangle":
        return [(0, -1.15 * radius), (1.05 * radius, 0.85 * radius), (-1.05 * radius, 0.85 * radius)]
    outer, inner = _ring(1.25 * radius, 5), _ring(0.55 * radius, 5, pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _ring(radius: float, count: int, turn: float = 0.0) -> list[tuple[float, float]]:
    """`count` points on a circle, clockwise from the top, turned by `turn` radians."""
    angles = [turn + 2 * pi * i / count for i in range(count)]
    return [(radius * sin(a), -radius * cos(a)) for a in angles]
