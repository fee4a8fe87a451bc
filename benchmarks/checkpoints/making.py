"""Makes a checkpoint once, under the cache directory, and finds it again."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.checkpoints.recipes import (
    RECIPES,
    Recipe,
    config_json,
    generation_config_json,
    preprocessor_config_json,
)
from benchmarks.checkpoints.tokenizer import write_tokenizer

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench-checkpoints"
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
SEED = 0
# Another number for other files from the same recipe.
VERSION = 2


def make(name: str, cache: Path = CACHE) -> Path:
    """The directory of a recipe's checkpoint, made if it is not there yet. Raises `KeyError` for another name."""
    recipe = RECIPES[name]
    if recipe.is_trained:
        return DEMO
    directory = cache / f"{name}-v{VERSION}"
    if not directory.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=cache, prefix=f"{name}-"))
        try:
            _write(unfinished, recipe)
            os.replace(unfinished, directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def _write(directory: Path, recipe: Recipe) -> None:
    # Only a checkpoint that is really made needs torch.
    from benchmarks.checkpoints.weights import write_weights

    ids, words = write_tokenizer(directory, recipe.text.vocabulary)
    _write_json(directory / "config.json", config_json(recipe, ids))
    _write_json(directory / "generation_config.json", generation_config_json(ids))
    _write_json(directory / "preprocessor_config.json", preprocessor_config_json(recipe))
    write_weights(directory, recipe, words, seed=SEED)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
