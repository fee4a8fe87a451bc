"""Both halves of a checkpoint in this process, for videos and images, beside the whole model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from checkpoint import load_vision
from lm_server.prompt import Message, Prompt, segment_keys
from lm_server.runner import ImageEmbedding
from lm_server.showing import ImageRef
from lm_server.tickets import Work
from tests.lm_server.workshop import Workshop, picture
from tests.videos.clips import drawn, png_frames
from tests.videos.whole import Clip, inputs
from vision_server.encoder import VisionTower
from vision_server.preprocess import ImagePreprocessor
from vision_server.settings import VisionSettings
from vision_server.sources import VideoFrames
from vision_server.video_pieces import join, pieces
from vision_server.video_preprocess import VideoPreprocessor


@dataclass(frozen=True)
class Film:
    """A list of drawn frames."""

    seed: int
    num_frames: int
    fps: float = 2.0

    @property
    def source(self) -> VideoFrames:
        return VideoFrames(png_frames(drawn(self.num_frames, self.seed)), self.fps)


# What a user says: a film, the number of a picture, or a text.
Part = Film | int | str


class Halves:
    """A checkpoint's two halves."""

    def __init__(self, model_dir: Path) -> None:
        self.model_dir = model_dir
        self.shop = Workshop(model_dir)
        self.loaded = load_vision(model_dir)
        self.tower = VisionTower(self.loaded, 1)
        self._films: dict[Film, tuple[ImageRef, ImageEmbedding, Clip]] = {}

    @cached_property
    def preprocessor(self) -> VideoPreprocessor:
        return self.preprocessor_with()

    def preprocessor_with(self, **settings: Any) -> VideoPreprocessor:
        """The checkpoint's video preprocessor under other settings."""
        images = ImagePreprocessor(self.model_dir)
        known = VisionSettings(model=str(self.model_dir), listen="", cache="", **settings)
        return VideoPreprocessor(self.model_dir, self.loaded.description.video_layout, images.processor_settings, known)

    def film(self, film: Film, most_patches: int = 100) -> tuple[ImageRef, ImageEmbedding, Clip]:
        """A film as the language half knows it, and as the whole model does."""
        if film not in self._films:
            prepared = self.preprocessor.prepare(film.source)
            made = join([self.tower.encode([piece])[0] for piece in pieces(prepared, most_patches)])
            ref = ImageRef(f"img_{film}", prepared.grid, prepared.video)
            clip = Clip(prepared.patches, prepared.grid, tuple(range(film.num_frames)), film.fps, film.num_frames)
            self._films[film] = ref, ImageEmbedding(made.merged, made.deepstack), clip
        return self._films[film]

    def prompt(self, *parts: Part) -> Prompt:
        """The prompt of one user's turn."""
        return self.shop.prompts.build([Message("user", tuple(self._ref(part) for part in parts))])

    def work(self, prompt: Prompt, *parts: Part) -> Work:
        """The turn as the engine takes it."""
        shown = [self._pair(part) for part in parts if not isinstance(part, str)]
        embeddings = {ref.image_id: embedding for ref, embedding in shown}
        return Work(prompt, segment_keys(prompt, "public", "f"), max_tokens=12, embeddings=embeddings)

    def whole(self, *parts: Part) -> dict[str, Any]:
        """The whole model's arguments for the turn."""
        kinds = {Film: "video", int: "image"}
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": kinds[type(part)]} for part in parts
        ]
        clips = [self.film(part)[2] for part in parts if isinstance(part, Film)]
        pictures = [picture(part) for part in parts if isinstance(part, int)]
        return inputs(self.shop.oracle, [{"role": "user", "content": content}], pictures, clips)

    def _ref(self, part: Part) -> str | ImageRef:
        return part if isinstance(part, str) else self._pair(part)[0]

    def _pair(self, part: Film | int) -> tuple[ImageRef, ImageEmbedding]:
        return self.film(part)[:2] if isinstance(part, Film) else self.shop.image(part)


def work_of(halves: Halves, turns: Sequence[Sequence[Part]], prompts: Sequence[Prompt]) -> list[Work]:
    """The turns of one request as the engine takes them."""
    return [halves.work(prompt, *parts) for prompt, parts in zip(prompts, turns, strict=True)]
