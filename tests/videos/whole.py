"""The whole model's arguments for prompts with videos, made by the code of transformers' own processors.

Their video processors need torchvision, so the pixels are given; the text, the times and the token types are theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from PIL import Image
from transformers.video_utils import VideoMetadata

from tests.families.oracle import Generated, Message, Oracle


@dataclass(frozen=True)
class Clip:
    """A video as the whole model gets it.

    Attributes:
        patches: pixel_values_videos of this one.
        grid: (t, h, w).
        places: Of its frames in the video they were chosen of.
        rate: Frames a second of that video.
        num_frames: Frames of that video.
    """

    patches: torch.Tensor
    grid: tuple[int, int, int]
    places: tuple[int, ...]
    rate: float
    num_frames: int

    @property
    def metadata(self) -> VideoMetadata:
        return VideoMetadata(total_num_frames=self.num_frames, fps=self.rate, frames_indices=list(self.places))


def inputs(
    oracle: Oracle, messages: Sequence[Message], images: Sequence[Image.Image], clips: Sequence[Clip]
) -> dict[str, Any]:
    """Arguments of `generate` for a prompt with videos."""
    processor = _processor(oracle)
    text = oracle.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    made: dict[str, Any] = {
        "pixel_values_videos": torch.cat([clip.patches for clip in clips]),
        "video_grid_thw": torch.tensor([clip.grid for clip in clips]),
        "video_metadata": [clip.metadata for clip in clips],
    }
    videos = [processor.replace_video_token(made, place) for place in range(len(clips))]
    pictures: list[str] = []
    pixels: dict[str, torch.Tensor] = {}
    if images:
        pixels = dict(oracle.image_processor(images=list(images), return_tensors="pt"))
        pictures = [processor.replace_image_token(pixels, place) for place in range(len(images))]
    expanded, _ = processor.get_text_with_replacements([text], pictures, videos)
    ids = oracle.tokenizer(expanded, return_tensors="pt")["input_ids"]
    types = torch.zeros_like(ids)
    types[ids == oracle.model.config.image_token_id] = 1
    types[ids == oracle.model.config.video_token_id] = 2
    if oracle.model.config.model_type == "qwen2_5_vl":
        made["second_per_grid_ts"] = torch.tensor([2 / clip.metadata.sampled_fps for clip in clips])
    del made["video_metadata"]
    return {**made, **pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}


@torch.no_grad()
def generate(oracle: Oracle, arguments: dict[str, Any], max_new_tokens: int) -> Generated:
    """The whole model's greedy answer."""
    greedy = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=oracle.model.generation_config.eos_token_id,
        pad_token_id=oracle.model.generation_config.pad_token_id,
    )
    oracle.model.model.rope_deltas = None
    sequence = oracle.model.generate(**arguments, generation_config=greedy)[0].tolist()
    prompt = arguments["input_ids"][0].tolist()
    tokens = sequence[len(prompt) :]
    text = oracle.tokenizer.decode(tokens, skip_special_tokens=True)
    return Generated(tuple(tokens), text, tuple(prompt), ())


def positions(oracle: Oracle, arguments: dict[str, Any]) -> torch.Tensor:
    """The whole model's rotary positions [3, S]; `generate` counts on from the last one."""
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    known = {name: arguments[name] for name in names if name in arguments}
    found: torch.Tensor = oracle.model.model.get_rope_index(**known)[0]
    return found[:, 0]


def _processor(oracle: Oracle) -> Any:
    """The family's processor without its parts, which are of no use here."""
    family = oracle.model.config.model_type
    name = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}.get(family, "Qwen3VLProcessor")
    made = object.__new__(getattr(transformers, name))
    made.image_token, made.video_token = "<|image_pad|>", "<|video_pad|>"
    made.vision_start_token, made.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    made.image_processor = SimpleNamespace(merge_size=2)
    made.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    return made
