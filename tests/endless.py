"""A checkpoint whose answers never end by themselves, for tests that need an answer to be under way."""

import json
from pathlib import Path

from tests.families import make


def make_endless(directory: Path) -> Path:
    """Writes a Qwen2-VL checkpoint whose end token is one that it never says."""
    made = make("qwen2_vl", directory)
    path = made / "generation_config.json"
    vocab_size = json.loads((made / "config.json").read_text())["text_config"]["vocab_size"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": vocab_size - 1}))
    return made
