"""An RGB picture → the patches that the tower takes, as the checkpoint's own image processor makes them."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch
import transformers
from PIL import Image, features
from transformers import AutoImageProcessor

from cache import VideoTimes
from rpc.errors import InvalidArgument
from vision_server.decode import DECODE_VERSION
from vision_server.patches import Grid, is_plain_rgb, patch_maker

# The torchvision backend gives other pixels; Pillow's is the one that every installation has.
BACKEND = "pil"


@dataclass(slots=True)
class PreparedImage:
    """One image ready for the tower."""

    # Float32, [t·h·w, channels · temporal patch · patch²].
    patches: torch.Tensor
    # (t, h, w) in patches.
    grid: tuple[int, int, int]
    # Size in pixels of the upright picture.
    width: int
    height: int
    # None for a still image, whose t is 1.
    video: VideoTimes | None = None

    def give_up(self) -> None:
        """Holds its patches no longer."""
        self.patches = torch.empty(0)


class ImagePreprocessor:
    """The checkpoint's image processor with its PIL backend, optionally bound to fewer tokens an image."""

    def __init__(self, model_dir: Path, max_tokens: int | None = None) -> None:
        processor: Any = AutoImageProcessor.from_pretrained(
            model_dir, backend=BACKEND, local_files_only=True, trust_remote_code=False
        )
        self._max_tokens = max_tokens
        self._processor = processor if max_tokens is None else _bounded(processor, max_tokens)
        self._maker = patch_maker(self._processor)

    @property
    def processor_settings(self) -> dict[str, Any]:
        """The processor's own settings."""
        return dict(self._processor.to_dict())

    @property
    def merge_size(self) -> int:
        """Patches along each side that become one token."""
        return int(self._processor.merge_size)

    @property
    def max_tokens(self) -> int:
        """Tokens that an image is scaled down to."""
        return int(self._processor.size.longest_edge) // _token_pixels(self._processor)

    def settings(self) -> dict[str, object]:
        """All that turns bytes into patches, as JSON values: part of the fingerprint."""
        effective = json.loads(json.dumps(self._processor.to_dict(), default=str, sort_keys=True))
        return {
            "class": type(self._processor).__name__,
            "backend": self._processor.backend,
            "settings": effective,
            "decode": DECODE_VERSION,
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "jpeg": features.version("libjpeg_turbo") or features.version("jpg"),
            "webp": features.version("webp"),
        }

    def prepare(self, image: Image.Image) -> PreparedImage:
        """The patches of an upright RGB picture. Raises `InvalidArgument` where its shape needs too many tokens."""
        patches, grid = self._patches(image)
        tokens = math.prod(grid) // self.merge_size**2
        if self._max_tokens is not None and tokens > self._max_tokens:
            raise InvalidArgument(
                f"image of {image.width}×{image.height} pixels needs {tokens} of {self._max_tokens} tokens"
            )
        return PreparedImage(patches, grid, image.width, image.height)

    def _patches(self, image: Image.Image) -> tuple[torch.Tensor, Grid]:
        if self._maker is not None and is_plain_rgb(image):
            patches, grid = self._maker.make(image)
            return torch.from_numpy(patches), grid
        features_ = self._processor(images=[image], return_tensors="pt")
        t, h, w = features_["image_grid_thw"][0].tolist()
        return features_["pixel_values"], (t, h, w)


def _token_pixels(processor: Any) -> int:
    return int(processor.patch_size * processor.merge_size) ** 2


def _bounded(processor: Any, max_tokens: int) -> Any:
    """The same processor, scaling images down to at most `max_tokens`; never to more than before."""
    longest = min(int(processor.size.longest_edge), max_tokens * _token_pixels(processor))
    size = {"longest_edge": longest, "shortest_edge": min(int(processor.size.shortest_edge), longest)}
    return type(processor).from_dict({**processor.to_dict(), "size": size})
