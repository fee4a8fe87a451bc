"""A checkpoint's directory as vLLM shall see it: with the language half's shards alone.

VLLM opens every shard that the index names, and refuses to start where one is absent.
"""

import json
from collections.abc import Collection
from pathlib import Path

INDEX = "model.safetensors.index.json"
WEIGHTS = ".safetensors"


def language_view(model_dir: Path, shards: Collection[str], view: Path) -> Path:
    """Fills the empty directory `view` with links, and an index of these shards alone; returns what vLLM is given.

    That is `model_dir` itself where there is one file of weights and no index.
    """
    index_file = model_dir / INDEX
    if not index_file.is_file():
        return model_dir
    for file in model_dir.resolve().iterdir():
        if file.name != INDEX and (file.suffix != WEIGHTS or file.name in shards):
            (view / file.name).symlink_to(file)
    index = json.loads(index_file.read_text())
    index["weight_map"] = {name: shard for name, shard in index["weight_map"].items() if shard in shards}
    (view / INDEX).write_text(json.dumps(index))
    return view
