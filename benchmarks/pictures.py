"""Draws a workload's pictures as PNG files: soft blocks of colour, at sizes that no system has to change."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.checkpoints import CACHE
from benchmarks.workload import Picture
from demo import scenes

DIRECTORY = CACHE.parent / "bench-pictures"
_BLOCKS = 12


def picture_path(picture: Picture, directory: Path = DIRECTORY) -> Path:
    """The picture's file, drawn if it is not there yet."""
    kind = "-scene" if picture.is_scene else ""
    path = directory / f"{picture.seed}-{picture.width}x{picture.height}{kind}.png"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        drawn = path.with_suffix(".part")
        _draw(picture).save(drawn, "PNG", compress_level=1)
        drawn.replace(path)
    return path


@lru_cache(maxsize=256)
def picture_bytes(picture: Picture) -> bytes:
    """The file's bytes."""
    return picture_path(picture).read_bytes()


def _draw(picture: Picture) -> Image.Image:
    if picture.is_scene:
        return scenes.draw(scenes.make_scene(picture.seed))
    noise = np.random.default_rng(picture.seed).integers(0, 256, (_BLOCKS, _BLOCKS, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((picture.width, picture.height), Image.Resampling.BICUBIC)
