"""The pictures and questions that ship with the demo: `python -m demo.gallery` writes them again.

The scenes are the first of a fixed evaluation seed and the questions are those that the seed gives: none was picked.
"""

import json
from pathlib import Path

from demo.evaluate import scene_seeds
from demo.questions import ask_all
from demo.scenes import draw, make_scene

SEED = 2026
COUNT = 6
FOLDER = Path(__file__).parent / "images"


def main() -> None:
    """Write the pictures and questions.json, which maps each picture's name to its questions and answers."""
    FOLDER.mkdir(exist_ok=True)
    listed = {}
    for number, seed in enumerate(scene_seeds(SEED, COUNT), start=1):
        scene = make_scene(seed)
        name = f"scene-{number}.png"
        draw(scene).save(FOLDER / name, optimize=True)
        listed[name] = [{"kind": q.kind, "text": q.text, "answer": q.answer} for q in ask_all(seed, scene)]
    (FOLDER / "questions.json").write_text(json.dumps(listed, indent=2) + "\n")


if __name__ == "__main__":
    main()
