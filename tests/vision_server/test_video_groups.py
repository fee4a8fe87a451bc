"""Frame groups: of videos that overlap only what is new goes through the tower, and nothing is different for it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache import Entry, decode, encode
from cache.tensors import to_torch
from protos import vision_pb2
from tests.cache.servers import Server
from tests.families import FAMILIES, oracle
from tests.videos.clips import drawn, png_frames
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.worker import Running, counted, running
from vision_server.settings import VisionSettings
from vision_server.sources import VideoFrames
from vision_server.video_groups import AT_ONCE

FILM = png_frames(drawn(12))
FIRST, SECOND = FILM[:8], FILM[4:]


class Rows:
    """The groups that went through a worker's tower since the last look."""

    def __init__(self, worker: Running) -> None:
        self._seen = 0
        worker.worker.loaded.model.register_forward_pre_hook(self._see)

    def groups(self, made: vision_pb2.Image) -> float:
        """As many as their rows are; all of this video's size."""
        seen, self._seen = self._seen, 0
        return seen / (made.grid.h * made.grid.w)

    def _see(self, module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        self._seen += len(arguments[0])


async def show(worker: Running, frames: Sequence[bytes], tenant: str = "") -> vision_pb2.Image:
    source = vision_pb2.VideoFrames(frames=[vision_pb2.VideoFrame(image=frame) for frame in frames])
    made: vision_pb2.Image = await worker.stub.Encode(vision_pb2.EncodeRequest(tenant=tenant, frames=source))
    return made


def kept(server: Server) -> list[str]:
    """The keys of all groups in the store."""
    return sorted(key.decode() for key in server.client.scan_iter("*:group:*"))


def check_whole(entry: Entry, worker: Running, frames: Sequence[bytes], model_dir: Path) -> None:
    """The entry is what transformers' tower makes of the whole video, up to float32 rounding."""
    video = worker.worker.videos.prepare(VideoFrames(tuple(frames), 2.0))
    with torch.no_grad():
        whole = oracle.load(model_dir).model.model.visual(video.patches, torch.tensor([video.grid]), return_dict=True)
    layers = getattr(whole, "deepstack_features", None) or []
    assert entry.grid == video.grid
    assert entry.video == video.video
    for tensor, expected in zip(entry.tensors, [whole.pooler_output, *layers], strict=True):
        assert (to_torch(tensor) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
async def test_of_overlapping_videos_only_new_groups_are_encoded(checkpoint: MakeCheckpoint, family: str) -> None:
    """Each video is the whole model's; the second has two groups of the first, which do not pass the tower again."""
    names = ("lookonce_frame_groups_encoded_total", "lookonce_frame_groups_reused_total")
    async with running(checkpoint(family)) as worker:
        rows, before = Rows(worker), [counted(name) for name in names]
        first = await show(worker, FIRST)
        assert rows.groups(first) == first.grid.t == 4
        second = await show(worker, SECOND)
        assert rows.groups(second) == 2
        assert not second.cached
        assert [counted(name) - old for name, old in zip(names, before, strict=True)] == [6, 2]
        for made, frames in ((first, FIRST), (second, SECOND)):
            check_whole(await worker.entry(made.image_id), worker, frames, checkpoint(family))


async def test_groups_between_known_ones_are_encoded(checkpoint: MakeCheckpoint) -> None:
    """New groups at several places, and one that comes twice, find their own places in the video."""
    model = checkpoint("qwen3_vl")
    async with running(model) as worker:
        rows = Rows(worker)
        await show(worker, FIRST)
        new = FILM[8:]
        mixed = (*new[:2], *FIRST[2:4], *new[2:], *new[:2])
        made = await show(worker, mixed)
        assert rows.groups(made) == 4 + 2
        check_whole(await worker.entry(made.image_id), worker, mixed, model)


async def test_a_still_video_is_one_group(checkpoint: MakeCheckpoint) -> None:
    """A group that comes again and again in one video passes the tower once."""
    async with running(checkpoint("qwen2_vl")) as worker:
        rows = Rows(worker)
        still = FILM[:1] * 9
        made = await show(worker, still)
        assert (made.grid.t, rows.groups(made)) == (5, 1)
        check_whole(await worker.entry(made.image_id), worker, still, checkpoint("qwen2_vl"))


async def test_a_damaged_group_is_encoded_again(checkpoint: MakeCheckpoint, server: Server) -> None:
    """Groups that are cut off, another group's, and not finite are counted, encoded again, and never shown."""
    model = checkpoint("qwen3_vl")
    async with running(model, server.url) as worker:
        rows = Rows(worker)
        made = await show(worker, FIRST)
        keys = kept(server)
        assert len(keys) == 4
        stored = [bytes(server.client.get(key)) for key in keys]  # type: ignore[arg-type]
        entry = decode(stored[2], expected_key=keys[2], expected_fingerprint=worker.fingerprint)
        first = replace(entry.tensors[0], data=memoryview(b"\xff" * entry.tensors[0].data.nbytes))
        bad = (stored[0][:-9], stored[3], encode(replace(entry, tensors=(first, *entry.tensors[1:]))))
        for key, value in zip(keys, bad, strict=False):
            server.client.set(key, value)
        reasons = ("truncated", "key", "values")
        before = [counted("lookonce_entries_damaged_total", reason=reason) for reason in reasons]
        server.client.delete(worker.key(made.image_id))
        entry = await worker.entry(made.image_id)
        assert rows.groups(made) == 4 + 3
        after = [counted("lookonce_entries_damaged_total", reason=reason) for reason in reasons]
        assert after == [count + 1 for count in before]
        check_whole(entry, worker, FIRST, model)
        assert kept(server) == keys


async def test_groups_are_each_tenants_own_and_short_lived(checkpoint: MakeCheckpoint, server: Server) -> None:
    """Another tenant's same frames are encoded; groups outlive their video by their time, not renewed by reuse."""
    async with running(checkpoint("qwen2_vl"), server.url, frame_group_ttl_s=50) as worker:
        rows = Rows(worker)
        first = await show(worker, FIRST)
        other = await show(worker, FIRST, tenant="acme")
        assert rows.groups(other) == 8
        assert {key.rpartition(":")[2] for key in kept(server)} == {"public", "acme"}
        assert all(0 < int(server.client.ttl(key)) <= 50 for key in kept(server))  # type: ignore[arg-type]
        assert await worker.delete(first.image_id)
        for key in kept(server):
            server.client.expire(key, 9)
        again = await show(worker, FIRST)
        assert (again.cached, rows.groups(again)) == (False, 0)
        assert all(int(server.client.ttl(key)) <= 9 for key in kept(server))  # type: ignore[arg-type]


async def test_without_a_time_no_groups_are_kept(checkpoint: MakeCheckpoint, server: Server) -> None:
    """0 turns groups off: nothing is kept beside the video, and all of the next one is encoded."""
    async with running(checkpoint("qwen2_vl"), server.url, frame_group_ttl_s=0) as worker:
        rows = Rows(worker)
        await show(worker, FIRST)
        assert rows.groups(await show(worker, SECOND)) == 8
        assert kept(server) == []
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="frame_group_ttl_s"):
            VisionSettings(model="m", listen="", cache="", frame_group_ttl_s=seconds)


@pytest.mark.parametrize("fault", ["gone", "full"])
async def test_a_store_that_fails_fails_no_video(checkpoint: MakeCheckpoint, server: Server, fault: str) -> None:
    """With the store gone, or full, a video of more groups than are tried at once is encoded whole."""
    model = checkpoint("qwen2_vl")
    frames = png_frames(drawn(2 * AT_ONCE + 6, seed=3))
    async with running(model, server.url) as worker:
        rows = Rows(worker)
        if fault == "gone":
            server.process.kill()
            server.process.wait()
        else:
            server.client.config_set("maxmemory", 1)
        made = await show(worker, frames)
        assert rows.groups(made) == made.grid.t == AT_ONCE + 3
        check_whole(await worker.entry(made.image_id), worker, frames, model)
