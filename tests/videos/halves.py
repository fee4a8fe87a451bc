"""Both halves of a checkpoint in this process, for videos and images, beside the whole model."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cache import EntryCache, StoreLimits
from cache.memory_store import MemoryStore
from checkpoint import load_vision
from lm_server.prompt import Message, Prompt, segment_keys
from lm_server.runner import ImageEmbedding
from lm_server.showing import ImageRef
from lm_server.tickets import Work
from tests.lm_server.workshop import Workshop, picture
from tests.videos.clips import drawn, png_frames
from tests.videos.whole import Clip as WholeClip
from tests.videos.whole import inputs
from vision_server.encoder import Embedding, VisionTower
from vision_server.frame_groups import Clip, ClipGroups, FrameGroups
from vision_server.library import Library
from vision_server.pipeline import EntryForm
from vision_server.preprocess import ImagePreprocessor, PreparedImage
from vision_server.settings import VisionSettings
from vision_server.sources import VideoFrames
from vision_server.video_pieces import join, pieces
from vision_server.video_preprocess import VideoPreprocessor


@dataclass(frozen=True)
class Film:
    """A list of drawn frames, from the `start`th that the seed draws."""

    seed: int
    num_frames: int
    fps: float = 2.0
    start: int = 0

    @property
    def files(self) -> tuple[bytes, ...]:
        return png_frames(drawn(self.start + self.num_frames, self.seed)[self.start :])

    @property
    def source(self) -> VideoFrames:
        return VideoFrames(self.files, self.fps)


# What a user says: a film, the number of a picture, or a text.
Part = Film | int | str


class Halves:
    """A checkpoint's two halves."""

    def __init__(self, model_dir: Path) -> None:
        self.model_dir = model_dir
        self.shop = Workshop(model_dir)
        self.loaded = load_vision(model_dir)
        self.tower = VisionTower(self.loaded, 1)
        self._films: dict[Film, tuple[ImageRef, ImageEmbedding, WholeClip]] = {}

    @cached_property
    def preprocessor(self) -> VideoPreprocessor:
        return self.preprocessor_with()

    def preprocessor_with(self, **settings: Any) -> VideoPreprocessor:
        """The checkpoint's video preprocessor under other settings."""
        images = ImagePreprocessor(self.model_dir)
        known = VisionSettings(model=str(self.model_dir), listen="", cache="", **settings)
        return VideoPreprocessor(self.model_dir, self.loaded.description.video_layout, images.processor_settings, known)

    def film(self, film: Film, most_patches: int = 100) -> tuple[ImageRef, ImageEmbedding, WholeClip]:
        """A film as the language half knows it, and as the whole model does."""
        if film not in self._films:
            prepared = self.preprocessor.prepare(film.source)
            made = join([self.tower.encode([piece])[0] for piece in pieces(prepared, most_patches)])
            ref = ImageRef(f"img_{film}", prepared.grid, prepared.video)
            clip = WholeClip(prepared.patches, prepared.grid, tuple(range(film.num_frames)), film.fps, film.num_frames)
            self._films[film] = ref, ImageEmbedding(made.merged, made.deepstack), clip
        return self._films[film]

    def film_by_groups(self, *films: Film) -> list[int]:
        """Has films encoded by way of frame groups, one after the other; how many groups the tower was given of each.

        They are shown so from now on.
        """
        description = self.loaded.description
        form = EntryForm(
            fingerprint="f" * 32,
            hidden_size=description.hidden_size,
            num_deepstack=description.num_deepstack,
            merge_size=description.spatial_merge_size,
            dtype="float32",
            max_bytes=1 << 28,
        )
        groups = FrameGroups(Library(MemoryStore(StoreLimits()), EntryCache(1 << 20), form), form, 60, 60)
        given: list[int] = []

        async def encode(prepared: PreparedImage) -> Embedding:
            given.append(prepared.grid[0])
            return self.tower.encode([prepared])[0]

        async def show(film: Film) -> Embedding:
            clip = ClipGroups(groups, Clip(f"img_{film.start:040x}", "public"))
            embedding = await clip.embed(self.preprocessor.prepare(film.source), encode)
            await clip.keep()
            return embedding

        for film in films:
            ref, _, whole_clip = self.film(film)
            made = asyncio.run(show(film))
            self._films[film] = ref, ImageEmbedding(made.merged, made.deepstack), whole_clip
        return given

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
