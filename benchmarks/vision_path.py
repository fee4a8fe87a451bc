"""`python -m benchmarks.vision_path`: an image's way through the vision worker, stage by stage and all at once.

Each stage alone: decode, prepare (ours, then transformers' processor beside it, and Pillow's resize, which both have in
them), the tower, pack, put. Then several images in flight through the worker's own pipeline and into its store, beside
the tower alone with the same images, in turn: what is left of the whole is what does not overlap.
"""

import argparse
import asyncio
import io
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.markdown import Markdown
from transformers import AutoImageProcessor

from benchmarks import machine
from benchmarks.checkpoints import make
from benchmarks.hand_off import serving
from benchmarks.results import DIRECTORY, write_table, write_values
from benchmarks.systems.system import THREADS
from cache import Entry, encode
from cache.tensors import check_finite, from_torch
from kernels import keep_freed_memory, leave_threads_to_the_model
from lookonce import embedded
from vision_server.admission import Admission
from vision_server.decode import ImageLimits, decode
from vision_server.encoder import Embedding, VisionTower
from vision_server.main import VisionWorker
from vision_server.pipeline import EncodingPipeline
from vision_server.preprocess import BACKEND, ImagePreprocessor, PreparedImage
from vision_server.settings import VisionSettings

# The largest picture whose tower is measured: attention grows with the square of it.
MOST_TOWER_TOKENS = 2048
STAGES = ("decode", "prepare", "processor", "resize", "tower", "pack", "put")
TTL_S = 60.0
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class File:
    """A picture to draw. `max_tokens`: the worker's bound on an image; None: the checkpoint's own."""

    name: str
    width: int
    height: int
    kind: str
    max_tokens: int | None = None

    def data(self, seed: int = 0) -> bytes:
        """The file: soft blocks of colour under a little noise, as a camera's."""
        random = np.random.default_rng(seed)
        blocks = random.integers(0, 256, (self.height // _BLOCK + 1, self.width // _BLOCK + 1, 3), dtype=np.uint8)
        soft = Image.fromarray(blocks).resize((self.width, self.height), Image.Resampling.BICUBIC)
        noise = random.integers(-6, 7, (self.height, self.width, 3))
        noisy = (np.asarray(soft, np.int64) + noise).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, self.kind, **({"compress_level": 1} if self.kind == "PNG" else {}))
        return buffer.getvalue()


FILES = (
    File("672×672 PNG", 672, 672, "PNG"),
    File("672×672 JPEG", 672, 672, "JPEG"),
    File("1000×800 JPEG", 1000, 800, "JPEG"),
    File("4000×3000 JPEG, at most 1024 tokens", 4000, 3000, "JPEG", 1024),
    File("4000×3000 JPEG", 4000, 3000, "JPEG"),
)


@dataclass(slots=True)
class Stages:
    """One file: its length, its tokens, and the seconds of every stage in every repeat."""

    name: str
    file_bytes: int
    tokens: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})


@dataclass(slots=True)
class Together:
    """Images in flight at once.

    Attributes:
        images: How many.
        whole_s: From the first upload to the last put, of every repeat.
        tower_s: The tower alone with the same images one after another.
        inside_s: The tower within the whole.
        idle_s: Between the tower's forwards within the whole.
        prepared_meanwhile: Part of the prepare stage's time that lay within the tower's forwards.
    """

    images: int
    whole_s: list[float] = field(default_factory=list)
    tower_s: list[float] = field(default_factory=list)
    inside_s: list[float] = field(default_factory=list)
    idle_s: list[float] = field(default_factory=list)
    prepared_meanwhile: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VisionPath:
    """A whole run."""

    machine: dict[str, Any]
    command: str
    recipe: str
    threads: int
    stages: list[Stages]
    together: Together


class Trace:
    """Stands before a tower and a preprocessor, and notes when each was at work."""

    def __init__(self, tower: VisionTower, preprocessor: ImagePreprocessor) -> None:
        self._tower = tower
        self._preprocessor = preprocessor
        self.forwards: list[tuple[float, float]] = []
        self.prepares: list[tuple[float, float]] = []

    def encode(self, images: Sequence[PreparedImage], *, give_up: bool = False) -> list[Embedding]:
        """The tower's."""
        with _noted(self.forwards):
            return self._tower.encode(images, give_up=give_up)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """The preprocessor's."""
        with _noted(self.prepares):
            return self._preprocessor.prepare(image)

    @property
    def inside_s(self) -> float:
        """Seconds of all forwards."""
        return sum(end - begin for begin, end in self.forwards)

    @property
    def idle_s(self) -> float:
        """Seconds between the first forward and the last in which there was none."""
        return self.forwards[-1][1] - self.forwards[0][0] - self.inside_s

    @property
    def prepared_meanwhile(self) -> float:
        """Part of the time of all prepares that lay within a forward."""
        within = sum(_overlap(one, other) for one in self.prepares for other in self.forwards)
        return within / sum(end - begin for begin, end in self.prepares)


@contextmanager
def _noted(spans: list[tuple[float, float]]) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        spans.append((begin, time.perf_counter()))


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


class Bench:
    """A vision worker's parts, and its store."""

    def __init__(self, checkpoint: Path, cache: str, threads: int) -> None:
        settings = VisionSettings(model=str(checkpoint), listen="127.0.0.1:0", cache=cache, threads=threads)
        self.checkpoint = checkpoint
        self.worker = VisionWorker(settings)
        self.limits = ImageLimits(settings.max_image_pixels)
        self.tower = VisionTower(self.worker.loaded, threads)
        self._settings = settings
        self._threads = threads

    @contextmanager
    def _alone(self) -> Iterator[Callable[[PreparedImage], list[Embedding]]]:
        """The tower in a thread like the pipeline's, gone again afterwards: two would be in each other's way."""
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(self._threads,)) as thread:
            yield lambda image: thread.submit(self.tower.encode, [image]).result()

    def stages(self, file: File, repeats: int) -> Stages:
        """Every stage of one file alone."""
        data = file.data()
        found = Stages(file.name, len(data))
        preprocessor = ImagePreprocessor(self.checkpoint, file.max_tokens)
        plain: Any = AutoImageProcessor.from_pretrained(self.checkpoint, backend=BACKEND)
        processor = type(plain).from_dict(preprocessor.settings()["settings"])
        with self._alone() as encode_alone:
            for number in range(repeats + 1):
                clock = _Clock(found.seconds if number else {stage: [] for stage in STAGES})
                prepared = self._prepared(data, preprocessor, processor, clock)
                found.tokens = math.prod(prepared.grid) // self.worker.form.merge_size**2
                if found.tokens <= MOST_TOWER_TOKENS:
                    [embedding] = clock("tower", partial(encode_alone, prepared))
                    entry = clock("pack", partial(self._pack, prepared, embedding))
                    clock("put", partial(asyncio.run, self._put(entry)))
        return found

    def _prepared(self, data: bytes, preprocessor: ImagePreprocessor, processor: Any, clock: "_Clock") -> PreparedImage:
        """The file ready for the tower. Raises `ValueError` where the processor makes other patches of it."""
        image = clock("decode", lambda: decode(data, self.limits))
        prepared: PreparedImage = clock("prepare", lambda: preprocessor.prepare(image))
        expected = clock("processor", lambda: processor(images=[image], return_tensors="pt"))
        if not torch.equal(prepared.patches, expected["pixel_values"]):
            raise ValueError("other patches than the processor's")
        _, h, w = prepared.grid
        size = (w * processor.patch_size, h * processor.patch_size)
        clock("resize", lambda: image.size == size or image.resize(size, processor.resample))
        return prepared

    def _pack(self, prepared: PreparedImage, embedding: Embedding) -> bytes:
        layers = (from_torch(f"deepstack.{place}", layer) for place, layer in enumerate(embedding.deepstack))
        tensors = (from_torch("embedding", embedding.merged), *layers)
        entry = Entry(
            "bench", self.worker.form.fingerprint, prepared.grid, prepared.width, prepared.height, 1, 1, tensors
        )
        check_finite(entry)
        return encode(entry)

    async def _put(self, entry: bytes) -> None:
        await self.worker.store.put("bench", entry, TTL_S)
        await self.worker.store.close()

    def together(self, file: File, images: int, repeats: int) -> Together:
        """So many pictures of one kind in flight, and the tower alone with them."""
        found = Together(images)
        files = [file.data(seed) for seed in range(images)]
        prepared = [self.worker.preprocessor.prepare(decode(data, self.limits)) for data in files]
        for number in range(repeats + 1):
            with self._alone() as encode_alone:
                tower_s = _seconds(lambda: list(map(encode_alone, prepared)))
            trace = Trace(self.tower, self.worker.preprocessor)
            whole_s = asyncio.run(self._all(files, trace))
            if number:
                found.tower_s.append(tower_s)
                found.whole_s.append(whole_s)
                found.inside_s.append(trace.inside_s)
                found.idle_s.append(trace.idle_s)
                found.prepared_meanwhile.append(trace.prepared_meanwhile)
        return found

    async def _all(self, files: Sequence[bytes], trace: Any) -> float:
        """Seconds from the first upload to the last put."""
        settings = self._settings
        admission = Admission(settings.max_waiting_images, settings.max_waiting_bytes)
        pipeline = EncodingPipeline(trace, trace, self.worker.form, self.limits, admission, settings.batch_images)

        async def one(place: int, data: bytes) -> None:
            entry = await pipeline.entry(f"bench{place}", data)
            await self.worker.store.put(f"bench{place}", entry, TTL_S)

        await self.worker.store.ping()
        started = time.perf_counter()
        await asyncio.gather(*(one(place, data) for place, data in enumerate(files)))
        seconds = time.perf_counter() - started
        await asyncio.to_thread(pipeline.close)
        await self.worker.store.close()
        return seconds


class _Clock:
    """Calls a stage and notes its seconds."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self._seconds = seconds

    def __call__(self, stage: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        self._seconds[stage].append(time.perf_counter() - started)
        return result


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(recipe: str, files: Sequence[File], images: int, threads: int, repeats: int) -> VisionPath:
    """Measures the files' stages, and the first file's pictures in flight together."""
    checkpoint = make(recipe)
    keep_freed_memory()
    threads = leave_threads_to_the_model(threads)
    with serving(shutil.which("redis-server") or embedded.find_program()) as addresses:
        bench = Bench(checkpoint, f"unix://{addresses['unix']['unix_socket_path']}", threads)
        stages = [bench.stages(file, repeats) for file in files]
        together = bench.together(files[0], images, repeats)
    return VisionPath(machine.machine(), machine.command("benchmarks.vision_path"), recipe, threads, stages, together)


def markdown(found: VisionPath) -> str:
    """The tables, of medians."""
    lines = [
        "# The vision path",
        "",
        f"`{found.command}`, {found.recipe}, {found.machine['processor']}, {found.threads} threads",
        "",
        "| file | KB | tokens | " + " | ".join(f"{stage} ms" for stage in STAGES) + " | processor / prepare |",
        "| --- " * (len(STAGES) + 4) + "|",
    ]
    lines += [_stages_line(stages) for stages in found.stages]
    together, part = found.together, median(found.together.tower_s) / median(found.together.whole_s)
    text = (
        f"{together.images} of the first in flight, from upload to put: {median(together.whole_s):.3f} s; the tower "
        f"alone with the same images: {median(together.tower_s):.3f} s, {part:.1%} of it. Within the whole the tower "
        f"took {median(together.inside_s):.3f} s and was idle between forwards for "
        f"{median(together.idle_s) * 1e3:.1f} ms; {median(together.prepared_meanwhile):.0%} of preparing went on "
        "meanwhile."
    )
    lines += ["", text]
    return "\n".join(lines) + "\n"


def _stages_line(stages: Stages) -> str:
    times = {stage: median(seconds) for stage, seconds in stages.seconds.items() if seconds}
    cells = (f"{times[stage] * 1e3:.1f}" if stage in times else "" for stage in STAGES)
    return (
        f"| {stages.name} | {stages.file_bytes / 1000:.0f} | {stages.tokens} | {' | '.join(cells)} "
        f"| {times['processor'] / times['prepare']:.1f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments say; the exit status."""
    options = _parser().parse_args(arguments)
    found = run(options.recipe, FILES[: options.files], options.images, options.threads, options.repeats)
    write_values(options.out, options.title, asdict(found))
    write_table(options.out, options.title, markdown(found))
    Console().print(Markdown(markdown(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vision_path", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl", help="the model")
    parser.add_argument("--files", type=int, default=len(FILES), help="only so many of the kinds of file")
    parser.add_argument("--images", type=int, default=8, help="in flight together")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--title", default="vision-path", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())
