"""Labelled examples for demo/policies.yaml: scenes whose truth is known, as `lookonce calibrate` takes them.

`python -m demo.labelled DIR --seed 1 --images 200` writes the pictures and labelled.jsonl into DIR.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

if __package__ in (None, ""):  # run as a file: make the package importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.evaluate import scene_seeds
from demo.scenes import Scene, draw, make_scene

EXAMPLES = "labelled.jsonl"


def _has(scene: Scene, color: str, shape: str) -> bool:
    return any((item.color, item.shape) == (color, shape) for item in scene.objects)


# Policy of demo/policies.yaml → whether a scene is to be flagged.
TRUTHS: Mapping[str, Callable[[Scene], bool]] = {
    "red-circle": lambda scene: _has(scene, "red", "circle"),
    "blue-square": lambda scene: _has(scene, "blue", "square"),
    "more-than-three-shapes": lambda scene: len(scene.objects) > 3,
    "several-stars": lambda scene: sum(item.shape == "star" for item in scene.objects) > 1,
    "anything-purple": lambda scene: any(item.color == "purple" for item in scene.objects),
}


def write(directory: Path, seed: int, images: int) -> Path:
    """Writes pictures and their labels; the file of the labels."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / EXAMPLES
    path.write_text("".join(_lines(directory, seed, images)), encoding="utf-8")
    return path


def _lines(directory: Path, seed: int, images: int) -> Iterator[str]:
    for number in scene_seeds(seed, images):
        scene, name = make_scene(number), f"scene-{number}.png"
        draw(scene).save(directory / name)
        for policy, is_so in TRUTHS.items():
            yield json.dumps({"image": name, "policy": policy, "label": is_so(scene)}) + "\n"


def main() -> None:
    """Writes what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    print(write(arguments.directory, arguments.seed, arguments.images))


if __name__ == "__main__":
    main()
