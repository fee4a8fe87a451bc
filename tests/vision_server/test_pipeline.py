"""What goes on at the same time in the pipeline."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image

from cache import decode
from tests.cache.sample import FINGERPRINT
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import png
from vision_server.admission import Admission
from vision_server.decode import ImageLimits
from vision_server.encoder import Embedding
from vision_server.pipeline import EncodingPipeline, EntryForm
from vision_server.preprocess import ImagePreprocessor, PreparedImage

HIDDEN = 4
FORM = EntryForm(FINGERPRINT, hidden_size=HIDDEN, num_deepstack=0, merge_size=2, dtype="float32", max_bytes=1 << 20)


class SlowTower:
    """A tower that stays in its forward until it is let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)

    def encode(self, images: Sequence[PreparedImage], *, give_up: bool) -> list[Embedding]:
        self.begun += [image.width for image in images]
        self.entered.release()
        assert self.gate.acquire(timeout=20)
        return [Embedding(torch.ones(image.patches.shape[0] // 4, HIDDEN), ()) for image in images]


class CountingPreprocessor:
    """The real preprocessor, which tells how many images it has prepared; wide ones wait to be let go."""

    def __init__(self, real: ImagePreprocessor) -> None:
        self._real = real
        self.begun: list[int] = []
        self.prepared: list[int] = []
        self.gate = threading.Semaphore(0)

    def prepare(self, image: Image.Image) -> PreparedImage:
        self.begun.append(image.width)
        if image.width > 100:
            assert self.gate.acquire(timeout=20)
        prepared = self._real.prepare(image)
        self.prepared.append(image.width)
        return prepared


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other threads change it
            await asyncio.sleep(0.005)


class Line:
    """A pipeline over a tower that a test holds up."""

    def __init__(self, checkpoint: MakeCheckpoint, max_batch: int = 1) -> None:
        self.tower, self.preprocessor = SlowTower(), CountingPreprocessor(ImagePreprocessor(checkpoint("qwen2_vl")))
        tower: Any = self.tower
        preprocessor: Any = self.preprocessor
        limits, admission = ImageLimits(1_000_000), Admission(100, 1 << 30)
        self.pipeline = EncodingPipeline(tower, preprocessor, FORM, limits, admission, max_batch)
        self.tasks: list[asyncio.Task[bytes]] = []

    def begin(self, *widths: int) -> None:
        for width in widths:
            self.tasks.append(asyncio.create_task(self.pipeline.entry(f"key{width}", png(width, width, 60))))

    async def let_through(self, forwards: int) -> None:
        """Lets the tower finish so many forwards, and waits until it has begun the next."""
        for _ in range(forwards):
            self.tower.gate.release()
            assert await asyncio.to_thread(self.tower.entered.acquire, timeout=20)

    async def end(self) -> None:
        for gate in (self.tower.gate, self.preprocessor.gate):
            gate.release(100)
        await asyncio.gather(*self.tasks)
        await asyncio.to_thread(self.pipeline.close)


@pytest.fixture
async def line(checkpoint: MakeCheckpoint) -> Line:
    return Line(checkpoint)


async def test_the_next_image_is_prepared_while_one_is_encoded(line: Line) -> None:
    """While the tower is busy with one image the next is decoded and prepared, but not every image that waits."""
    line.begin(60, 61, 62, 63, 64, 65)
    assert await asyncio.to_thread(line.tower.entered.acquire, timeout=20)
    await until(lambda: len(line.preprocessor.prepared) == 3)
    await asyncio.sleep(0.05)
    # Two are prepared at once, and either may be the first to reach the tower.
    assert len(line.tower.begun) == 1
    assert line.tower.begun[0] in line.preprocessor.prepared
    assert len(line.preprocessor.prepared) == 3
    await line.end()
    assert sorted(line.tower.begun) == [60, 61, 62, 63, 64, 65]


async def test_the_pulse_tells_of_every_encoding(line: Line) -> None:
    """While the tower is at an image the pulse counts, so that one which hangs is seen; else not."""
    assert line.pipeline.pulse.busy_s == 0
    line.begin(60)
    assert await asyncio.to_thread(line.tower.entered.acquire, timeout=20)
    assert line.pipeline.pulse.busy_s > 0
    await line.end()
    assert line.pipeline.pulse.busy_s == 0


async def test_an_image_is_packed_while_the_next_is_encoded(line: Line) -> None:
    """The entry of an image is there while the tower is busy with the next one."""
    line.begin(60)
    assert await asyncio.to_thread(line.tower.entered.acquire, timeout=20)
    line.begin(61)
    await until(lambda: len(line.preprocessor.prepared) == 2)
    await line.let_through(1)
    data = await asyncio.wait_for(line.tasks[0], 20)
    assert not line.tasks[1].done()
    assert decode(data, expected_key="key60", expected_fingerprint=FINGERPRINT).width == 60
    await line.end()


async def test_packing_does_not_wait_for_images_that_are_being_prepared(line: Line) -> None:
    """With every preparing thread busy, an image that is encoded is packed all the same."""
    line.begin(60)
    assert await asyncio.to_thread(line.tower.entered.acquire, timeout=20)
    line.begin(200, 201)
    await until(lambda: len(line.preprocessor.begun) == 3)
    line.tower.gate.release()
    data = await asyncio.wait_for(line.tasks[0], 20)
    assert decode(data, expected_key="key60", expected_fingerprint=FINGERPRINT).width == 60
    assert line.preprocessor.prepared == [60]
    await line.end()


async def test_what_waits_meanwhile_is_encoded_together(checkpoint: MakeCheckpoint) -> None:
    """With batches of four, what is prepared while the tower is busy goes into its next forward."""
    line = Line(checkpoint, max_batch=4)
    line.begin(60)
    assert await asyncio.to_thread(line.tower.entered.acquire, timeout=20)
    line.begin(61, 62, 63, 64, 65)
    await until(lambda: len(line.preprocessor.prepared) == 6)
    await line.let_through(1)
    assert len(line.tower.begun) == 5
    await line.end()
