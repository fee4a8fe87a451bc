"""An RGB picture → the patches that transformers' Qwen2VLImageProcessor makes of it, bit by bit, without its copies.

The processor copies a picture a dozen times, several of them in float64. Of its rescaling and normalising only 256
values a channel can come, though: they are had from the processor once and looked up, two neighbouring pixels at a
time, straight into the order of the patches.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

CHANNELS = 3
# About so many pixels are worked on at once: what is made of them on the way stays in the processor's cache.
BAND_PIXELS = 1 << 17
Grid = tuple[int, int, int]


class PatchMaker:
    """Makes the patches of one processor, whose settings must be covered: see `patch_maker`. Safe in many threads."""

    def __init__(self, processor: Any) -> None:
        self._patch, self._merge = int(processor.patch_size), int(processor.merge_size)
        self._frames = int(processor.temporal_patch_size)
        self._min_pixels, self._max_pixels = processor.size.shortest_edge, processor.size.longest_edge
        self._resample = processor.resample
        self._tables = _pair_tables(_level_table(processor).tobytes())

    def make(self, image: Image.Image) -> tuple[npt.NDArray[np.float32], Grid]:
        """The patches [h·w, channels · temporal patch · patch²] of a plain RGB picture, and its grid (1, h, w).

        Raises `ValueError` for an aspect ratio over the processor's limit.
        """
        image = self._resized(image)
        rows, columns = image.height // self._patch, image.width // self._patch
        pairs = self._room(rows * columns)
        self._fill(image, pairs)
        return pairs.reshape(rows * columns, -1).view(np.float32), (1, rows, columns)

    def make_video(
        self, frames: Iterable[Image.Image], num_frames: int, size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], Grid]:
        """The patches of a video's plain RGB frames, and its grid (t, h, w).

        `size` (width, height) is what each is scaled to. The last one stands for those that are missing in the last
        temporal patch.

        Raises `ValueError` where there are not `num_frames` frames.
        """
        width, height = size
        rows, columns = height // self._patch, width // self._patch
        groups = -(-num_frames // self._frames)
        pairs = self._room(groups * rows * columns).reshape(groups, rows * columns, CHANNELS, self._frames, -1)
        count = 0
        for place, frame in enumerate(frames):
            group, within = divmod(place, self._frames)
            # Those behind the last frame of all are overwritten, except where there are none.
            self._fill(self._scaled(frame, size), pairs[group, :, :, within:])
            count += 1
        if count != num_frames:
            raise ValueError(f"{num_frames} frames were promised, {count} came")
        return pairs.reshape(groups * rows * columns, -1).view(np.float32), (groups, rows, columns)

    def _room(self, num_patches: int) -> npt.NDArray[np.int64]:
        """Memory for patches [n, C, T, patch² / 2]: pairs of float32 values, moved as whole words."""
        return np.empty((num_patches, CHANNELS, self._frames, self._patch**2 // 2), np.int64)

    def _fill(self, image: Image.Image, pairs: npt.NDArray[np.int64]) -> None:
        """Writes a picture's patches to `pairs` [patches, C, T, patch² / 2], the same for every one of T."""
        done = 0
        for band in _bands(image, self._patch * self._merge):
            num_patches = band.size // (CHANNELS * self._patch**2)
            self._write(band, pairs[done : done + num_patches])
            done += num_patches

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = smart_resize(
            image.height, image.width, self._patch * self._merge, self._min_pixels, self._max_pixels
        )
        return self._scaled(image, (width, height))

    def _scaled(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image if image.size == size else image.resize(size, self._resample)

    def _write(self, band: npt.NDArray[np.uint8], pairs: npt.NDArray[np.int64]) -> None:
        """Writes the patches of a band [n · merge · patch, width, channels] to `pairs` [patches, C, T, patch² / 2]."""
        patch, merge = self._patch, self._merge
        columns = band.shape[1] // (merge * patch)
        # Rows, columns and then the patches within one token, each with a plane for every channel.
        pixels = band.reshape(-1, merge, patch, columns, merge, patch, CHANNELS).transpose(0, 3, 1, 4, 6, 2, 5)
        indices = np.ascontiguousarray(pixels).reshape(-1, CHANNELS, patch * patch).view(np.uint16)
        for channel, table in enumerate(self._tables):
            # Every index is within the table; "wrap" only spares numpy from looking.
            pairs[:, channel] = np.take(table, indices[:, channel], mode="wrap")[:, None]


def patch_maker(processor: Any) -> PatchMaker | None:
    """The maker of a processor's patches; None where the processor has to make them itself.

    A maker is taken only after it has made the same patches of a sample as the processor, whatever its release.
    """
    if not _is_covered(processor):
        return None
    maker = PatchMaker(processor)
    return maker if _agrees(maker, processor) else None


def is_plain_rgb(image: Image.Image) -> bool:
    """Whether a picture is RGB and nothing in it is transparent."""
    return image.mode == "RGB" and image.info.get("transparency") is None


def _is_covered(processor: Any) -> bool:
    return (
        type(processor) is Qwen2VLImageProcessorPil
        and bool(processor.do_resize and processor.do_rescale and processor.do_normalize)
        and isinstance(processor.resample, int)
        and bool(processor.size.shortest_edge and processor.size.longest_edge)
        # Pixels are looked up in pairs.
        and processor.patch_size % 2 == 0
    )


def _agrees(maker: PatchMaker, processor: Any) -> bool:
    """Whether both make the same patches of a picture that has every level, and that has to be resized."""
    levels = np.arange(71 * 45 * CHANNELS, dtype=np.uint32).reshape(45, 71, CHANNELS) * 7 % 256
    sample = Image.fromarray(levels.astype(np.uint8))
    expected = processor(images=[sample], return_tensors="np")
    patches, grid = maker.make(sample)
    return np.array_equal(patches, expected["pixel_values"]) and [list(grid)] == expected["image_grid_thw"].tolist()


def _level_table(processor: Any) -> npt.NDArray[np.float32]:
    """What the processor makes of every level of every channel: [channels, 256]."""
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (CHANNELS, 1, 256))
    values = processor.normalize(
        processor.rescale(levels, processor.rescale_factor), processor.image_mean, processor.image_std
    )
    return np.asarray(values, np.float32)[:, 0]


@cache
def _pair_tables(level_table: bytes) -> npt.NDArray[np.int64]:
    """For every channel and two bytes, read as one uint16, both their values as one word: [channels, 65536].

    Half a MiB a channel, held once for images and videos.
    """
    levels = np.frombuffer(level_table, np.float32).reshape(CHANNELS, 256)
    both = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.uint8).reshape(-1, 2)
    return np.ascontiguousarray(levels[:, both]).view(np.int64)[..., 0]


def _bands(image: Image.Image, unit: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The picture in bands [height, width, channels] of some units' height: no second copy of it is held whole."""
    height = unit * max(1, BAND_PIXELS // (unit * image.width))
    for top in range(0, image.height, height):
        yield np.asarray(image.crop((0, top, image.width, min(top + height, image.height))))
