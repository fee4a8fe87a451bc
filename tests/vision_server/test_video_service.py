"""Videos at the vision worker's face: ids, entries, re-encoding, and what is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from cache import DEFAULT_TENANT, original_key
from protos import vision_pb2
from rpc.errors import InvalidArgument, NotFound, TooLarge
from tests.cache.servers import Server
from tests.videos.clips import drawn, png_frames, sound, video
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import png
from tests.vision_server.worker import UNKNOWN_ID, Running, counted, refused, running
from vision_server.settings import VideoLimits
from vision_server.video_pieces import pieces

FRAMES = drawn(6)
CLIP = video(FRAMES)


async def of_file(worker: Running, data: bytes = CLIP, tenant: str = "", **options: Any) -> vision_pb2.Image:
    source = vision_pb2.VideoFile(data=data, **options)
    answer: vision_pb2.Image = await worker.stub.Encode(vision_pb2.EncodeRequest(tenant=tenant, video=source))
    return answer


async def of_frames(worker: Running, *frames: bytes | str, tenant: str = "", **options: Any) -> vision_pb2.Image:
    sources = [
        vision_pb2.VideoFrame(image_id=one) if isinstance(one, str) else vision_pb2.VideoFrame(image=one)
        for one in frames
    ]
    source = vision_pb2.VideoFrames(frames=sources, **options)
    answer: vision_pb2.Image = await worker.stub.Encode(vision_pb2.EncodeRequest(tenant=tenant, frames=source))
    return answer


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
async def test_a_video_is_kept_as_an_image_is(checkpoint: MakeCheckpoint, server: Server, family: str) -> None:
    """It is encoded once, its entry tells its times; without it, it is described, and made again the same."""
    async with running(checkpoint(family), server.url) as worker:
        first = await of_file(worker, fps=4.0)
        assert (first.width, first.height, first.bytes, first.grid.t) == (80, 64, len(CLIP), 3)
        assert list(first.timestamps) == [0.125, 0.625, 1.125]
        assert (first.seconds_per_grid, first.cached) == (0.5, False)
        assert (await of_file(worker, fps=4.0)).cached
        entry = await worker.entry(first.image_id)
        assert entry.grid == (3, first.grid.h, first.grid.w)
        assert entry.video is not None
        assert entry.video.seconds == (0.125, 0.625, 1.125)
        assert entry.num_tokens == first.image_tokens == 3 * first.grid.h * first.grid.w // 4

        server.client.delete(worker.key(first.image_id))
        described = await worker.get(first.image_id)
        assert (described.entry_bytes, described.grid, list(described.timestamps)) == (
            0,
            first.grid,
            list(first.timestamps),
        )
        data, encoded = await worker.fetch(first.image_id)
        assert encoded
        again = await worker.entry(first.image_id)
        assert again.video == entry.video
        assert all(one.data == other.data for one, other in zip(again.tensors, entry.tensors, strict=True))
        assert len(data) == first.entry_bytes
        assert await worker.delete(first.image_id)
        assert not server.client.exists(original_key(first.image_id, DEFAULT_TENANT))


async def test_options_are_part_of_the_id(checkpoint: MakeCheckpoint) -> None:
    """The same file with another rate or number of frames is another video; the same again is the same."""
    async with running(checkpoint("qwen3_vl")) as worker:
        ids = [
            (await of_file(worker, **options)).image_id
            for options in ({}, {"fps": 4.0}, {"fps": 1.0}, {"num_frames": 4}, {"num_frames": 6})
        ]
        frames = png_frames(FRAMES)
        ids += [(await of_frames(worker, *frames, fps=fps)).image_id for fps in (2.0, 4.0)]
        ids += [(await of_frames(worker, *frames[:5], fps=2.0)).image_id]
        assert len(set(ids)) == len(ids)
        assert (await of_frames(worker, *frames)).image_id == ids[5]
        assert (await of_file(worker, tenant="acme", fps=4.0)).image_id == ids[1]


async def test_frames_may_be_images_uploaded_before(checkpoint: MakeCheckpoint) -> None:
    """A frame's id stands for its bytes, of this tenant alone; a video is no frame."""
    async with running(checkpoint("qwen2_vl")) as worker:
        frames = png_frames(FRAMES)
        ids = [(await worker.encode(frame)).image_id for frame in frames]
        by_id = await of_frames(worker, *ids)
        assert (await of_frames(worker, frames[0], *ids[1:4], *frames[4:])).image_id == by_id.image_id
        async with refused(NotFound, "frames[1]"):
            await of_frames(worker, frames[0], UNKNOWN_ID)
        async with refused(NotFound, "frames[0]"):
            await of_frames(worker, *ids, tenant="acme")
        async with refused(InvalidArgument, "frames[1]: a frame is an image"):
            await of_frames(worker, ids[0], by_id.image_id)


async def test_pieces_of_a_video_make_the_same_entry(
    checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that goes through the tower in pieces has the embedding that it has in one."""
    for family in ("qwen2_5_vl", "qwen3_vl"):
        entries = []
        for most in (8192, 1):
            monkeypatch.setattr("vision_server.pipeline.pieces", partial(pieces, most=most))
            async with running(checkpoint(family)) as worker:
                before = counted("lookonce_images_encoded_total")
                video_ = await of_frames(worker, *png_frames(FRAMES))
                assert counted("lookonce_images_encoded_total") - before == (1 if most > 1 else 3)
                entries.append(await worker.entry(video_.image_id))
        for whole, joined in zip(entries[0].tensors, entries[1].tensors, strict=True):
            values = [np.frombuffer(tensor.data, np.float32) for tensor in (whole, joined)]
            assert np.allclose(*values, atol=1e-5)


async def test_what_is_no_video_is_refused(checkpoint: MakeCheckpoint) -> None:
    """Bad files, options out of bounds and empty lists are refused by field and limit; the worker goes on."""
    limits = VideoLimits(frames=6, file_bytes=100_000)
    async with running(checkpoint("qwen2_vl"), videos=limits) as worker:
        for data, words in ((b"", "video is empty"), (b"text" * 9, "not an MP4"), (png(), "not an MP4")):
            async with refused(InvalidArgument, words):
                await of_file(worker, data)
        async with refused(InvalidArgument, "no video stream"):
            await of_file(worker, sound())
        async with refused(InvalidArgument, "damaged or truncated"):
            await of_file(worker, CLIP[:-20])
        async with refused(TooLarge, "over the limit of 100000 bytes"):
            await of_file(worker, CLIP + bytes(100_000))
        for fps in (0.0, -1.0, float("nan"), float("inf"), 241.0, 9e-6):
            async with refused(InvalidArgument, "fps must be a number from 1e-05 to 240"):
                await of_file(worker, fps=fps)
            async with refused(InvalidArgument, "fps must be"):
                await of_frames(worker, png(), fps=fps)
        async with refused(InvalidArgument, "num_frames must be a number from 1 to 6"):
            await of_file(worker, num_frames=7)
        async with refused(InvalidArgument, "fps and num_frames exclude each other"):
            await of_file(worker, fps=1.0, num_frames=2)
        for frames in ((), (png(),) * 7):
            async with refused(InvalidArgument, "frames: 1 to 6 are taken"):
                await of_frames(worker, *frames)
        async with refused(InvalidArgument, "frames[0]: image is not a PNG"):
            await of_frames(worker, CLIP)
        async with refused(InvalidArgument, "image is not a PNG"):
            await worker.encode(CLIP)
        assert (await of_file(worker)).grid.t > 0


async def test_a_kept_string_is_no_upload(checkpoint: MakeCheckpoint, server: Server) -> None:
    """What this worker keeps of a video is not taken as an image or a frame from a client."""
    async with running(checkpoint("qwen2_vl"), server.url) as worker:
        made = await of_file(worker)
        kept = server.client.get(original_key(made.image_id, DEFAULT_TENANT))
        async with refused(InvalidArgument, "image is not a PNG"):
            await worker.encode(kept)
        async with refused(InvalidArgument, "image is not a PNG"):
            await of_frames(worker, kept)


async def test_an_embedding_over_the_limit_is_refused(checkpoint: MakeCheckpoint) -> None:
    """A video whose entry would be larger than is stored is refused before it is encoded."""
    async with (
        running(checkpoint("qwen2_vl"), max_entry_bytes=2000) as worker,
        refused(TooLarge, "the video's embedding takes"),
    ):
        await of_file(worker)
