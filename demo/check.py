"""Check the checkpoint itself, without a server: plain transformers, greedy, one question at a time.

`python -m demo.check --images 100` prints the same table and JSON line as demo.evaluate.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2VLForConditionalGeneration

from demo.evaluate import MAX_TOKENS, Outcome, positive, scene_seeds, summary, table
from demo.questions import ask_all
from demo.scenes import draw, make_scene

CHECKPOINT = Path(__file__).parent / "checkpoint"


class Asker:
    """The whole model in one process, asked through its chat template."""

    def __init__(self, checkpoint: Path = CHECKPOINT) -> None:
        self.model = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.processor = AutoImageProcessor.from_pretrained(checkpoint)
        self._image_pad = self.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id)

    def prompt(self, text: str, image_tokens: int, system: str | None = None) -> str:
        """The chat prompt with the image's placeholder repeated `image_tokens` times."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]})
        chat = str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        return chat.replace(self._image_pad, self._image_pad * image_tokens)

    @torch.inference_mode()
    def __call__(self, image: Image.Image, text: str, system: str | None = None) -> str:
        """The greedy answer to one question about one picture."""
        pixels = self.processor(images=[image], return_tensors="pt")
        grid = pixels["image_grid_thw"]
        prompt = self.prompt(text, int(grid.prod()) // self.processor.merge_size**2, system)
        inputs = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        ids = inputs["input_ids"]
        output = self.model.generate(
            input_ids=ids,
            attention_mask=inputs["attention_mask"],
            mm_token_type_ids=(ids == self.model.config.image_token_id).long(),
            pixel_values=pixels["pixel_values"],
            image_grid_thw=grid,
            max_new_tokens=MAX_TOKENS,
        )
        return str(self.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


def check(asker: Asker, seed: int, images: int, system: str | None = None) -> list[Outcome]:
    """Ask one question of each kind about each of `images` scenes."""
    outcomes = []
    for scene_seed in scene_seeds(seed, images):
        scene = make_scene(scene_seed)
        picture = draw(scene)
        outcomes += [Outcome(q, asker(picture, q.text, system)) for q in ask_all(scene_seed, scene)]
    return outcomes


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="which scenes (default 0)")
    parser.add_argument("--images", type=positive, default=50, help="how many scenes (default 50)")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="where the checkpoint is")
    parser.add_argument("--system", help="a system message to put in front")
    given = parser.parse_args()
    begin = time.monotonic()
    outcomes = check(Asker(given.checkpoint), given.seed, given.images, given.system)
    print(table(outcomes, time.monotonic() - begin), file=sys.stderr)
    print(json.dumps(summary(given.seed, given.images, outcomes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
