"""`python -m benchmarks.clips`: the second of two clips that overlap, beside the same clip encoded whole.

Clips are lists of PNG frames, sent to a vision worker's images in this process over a store of its own: from the
upload to the last put. Decoding and preparing frames is part of both.
"""

import argparse
import asyncio
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.checkpoints import make
from benchmarks.hand_off import serving
from benchmarks.systems.system import THREADS
from kernels import keep_freed_memory, leave_threads_to_the_model
from lookonce import embedded
from vision_server.images import Images
from vision_server.main import VisionWorker
from vision_server.settings import VisionSettings
from vision_server.sources import VideoFrames, pack

FRAMES, MOVED = 32, 4


@dataclass(frozen=True, slots=True)
class Seconds:
    """One repeat.

    Attributes:
        first: The first clip, of which nothing is there.
        second: The second one, of which seven eighths are.
        whole: The second one where no frame groups are kept.
    """

    first: float
    second: float
    whole: float


def film(side: int, seed: int) -> list[bytes]:
    """The frames of both clips together, as PNG files."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (FRAMES + MOVED, side // 16, side // 16, 3), dtype=np.uint8)
    return [_png(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)) for frame in blocks]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def _timed(images: Images, tenant: str, frames: Sequence[bytes]) -> float:
    clip = pack(VideoFrames(tuple(frames), 2.0))
    started = time.perf_counter()
    await images.upload(tenant, clip)
    return time.perf_counter() - started


async def measure(checkpoint: Path, cache: str, threads: int, side: int, repeats: int) -> list[Seconds]:
    """The repeats, after one that does not count. The two ways are two tenants', so that neither finds the other's."""
    workers = [
        VisionWorker(
            VisionSettings(
                model=str(checkpoint), listen="127.0.0.1:0", cache=cache, threads=threads, frame_group_ttl_s=ttl_s
            )
        )
        for ttl_s in (3600.0, 0.0)
    ]
    grouped, whole = (worker.open_images() for worker in workers)
    found = []
    for number in range(repeats + 1):
        frames = film(side, number)
        first = await _timed(grouped, "grouped", frames[:FRAMES])
        second = await _timed(grouped, "grouped", frames[MOVED:])
        found.append(Seconds(first, second, await _timed(whole, "whole", frames[MOVED:])))
    for worker, images in zip(workers, (grouped, whole), strict=True):
        await images.close()
        await worker.store.close()
    return found[1:]


def main() -> None:
    """Measures, and prints the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clips", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl")
    parser.add_argument("--side", type=int, default=336, help="of a frame, in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    chosen = parser.parse_args()
    keep_freed_memory()
    threads = leave_threads_to_the_model(chosen.threads) or chosen.threads
    with serving(shutil.which("redis-server") or embedded.find_program()) as addresses:
        url = f"unix://{addresses['unix']['unix_socket_path']}"
        found = asyncio.run(measure(make(chosen.recipe), url, threads, chosen.side, chosen.repeats))
    first, second, whole = (median(getattr(one, name) for one in found) for name in ("first", "second", "whole"))
    print(f"{FRAMES} frames of {chosen.side}×{chosen.side}, {chosen.recipe}, medians of {chosen.repeats}:")
    print(f"whole {whole:.2f} s; after a clip that shares 7/8: {second:.2f} s, {second / whole:.2f} of it")
    print(f"the first clip, whose groups are kept besides: {first:.2f} s, {first / whole:.2f} of it")


if __name__ == "__main__":
    main()
