"""How images and videos stand in a prompt: their places, and their positions in rows, columns and time. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache import VideoTimes
from checkpoint import VideoLayout

Positions = npt.NDArray[np.int64]
Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the language half has to know of an image before its embedding is there.

    Attributes:
        grid: (t, h, w) in patches.
        video: When its temporal patches were; None for a still image.
    """

    grid: Grid
    video: VideoTimes | None = None


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image or a video in a prompt: which one, its grid (t, h, w) in patches, and a video's times."""

    image_id: str
    grid: Grid
    video: VideoTimes | None = None


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Where an image's tokens stand in a prompt; of a video that is told in blocks, those of one temporal patch.

    Attributes:
        image: Which one.
        start: The first token.
        num_tokens: How many there are.
        offset: Which of the embedding's rows the first token shows.
    """

    image: ImageRef
    start: int
    num_tokens: int
    offset: int = 0

    @property
    def end(self) -> int:
        """One past the last token."""
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video's place in a prompt depends on in a checkpoint.

    Attributes:
        layout: Of the family.
        token_id: The placeholder's.
        start_token_id: Of the mark before a TOLD temporal patch.
        tokens_per_second: Of CLOCKED positions.
    """

    layout: VideoLayout
    token_id: int
    start_token_id: int
    tokens_per_second: float = 1.0


def shown(spans: Sequence[ImageSpan]) -> tuple[tuple[ImageRef, int], ...]:
    """Each image and video of a prompt, once for every time that it is shown, and the end of its last token."""
    found: list[tuple[ImageRef, int]] = []
    for span in spans:
        if span.offset == 0:
            found.append((span.image, span.end))
        else:
            found[-1] = (span.image, span.end)
    return tuple(found)


def blocks(image: ImageRef, layout: VideoLayout, merge_size: int) -> list[int]:
    """Tokens of each run that an image stands in: one, or of a TOLD video one for every temporal patch."""
    t, h, w = image.grid
    tokens = h * w // merge_size**2
    return [tokens] * t if image.video is not None and layout is VideoLayout.TOLD else [t * tokens]


def told(placeholder: str, start_mark: str, end_mark: str, times: VideoTimes) -> str:
    """What stands for a TOLD video's placeholder: every temporal patch in marks of its own, behind its time.

    Source: `replace_video_token` of transformers' Qwen3VLProcessor.
    """
    return "".join(f"<{second:.1f} seconds>{start_mark}{placeholder}{end_mark}" for second in times.seconds)


def rotary_positions(
    num_tokens: int, spans: Sequence[ImageSpan], merge_size: int, video: VideoFacts
) -> tuple[Positions, int]:
    """Multimodal rotary positions of Qwen-VL.

    Text counts up on all three axes together. An image's tokens take (start, start + row, start + column), and what
    follows continues at start + max(rows, columns). A video's take start + what `_clock` says of their temporal patch
    for the first, and what follows continues as after an image, however long it is. Source: Qwen2-VL, arXiv
    2409.12191, section 2.1, and `get_rope_index` of transformers' models.

    Returns:
        Positions [3, num_tokens] and the position after the last one.
    """
    positions = np.empty((3, num_tokens), dtype=np.int64)
    token = position = 0
    for span in spans:
        text = span.start - token
        positions[:, token : span.start] = np.arange(position, position + text)
        position += text
        rows, columns = (side // merge_size for side in span.image.grid[1:])
        groups = span.num_tokens // (rows * columns)
        positions[0, span.start : span.end] = position + np.repeat(_clock(span, groups, video), rows * columns)
        positions[1, span.start : span.end] = position + np.tile(np.repeat(np.arange(rows), columns), groups)
        positions[2, span.start : span.end] = position + np.tile(np.arange(columns), groups * rows)
        position += max(rows, columns)
        token = span.end
    positions[:, token:] = np.arange(position, position + num_tokens - token)
    return positions, position + num_tokens - token


def _clock(span: ImageSpan, groups: int, video: VideoFacts) -> Positions:
    """The steps of time from a run's beginning to each of its temporal patches, [groups]."""
    counted = np.arange(groups)
    if span.image.video is None or video.layout is not VideoLayout.CLOCKED:
        return counted
    # In float32 and cut off, as the model does it.
    interval = np.float32(video.tokens_per_second) * np.float32(span.image.video.seconds_per_grid)
    return (counted.astype(np.float32) * interval).astype(np.int64)
