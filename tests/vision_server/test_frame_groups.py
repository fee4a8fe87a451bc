"""Frame groups: clips that show the same frames share their encoding, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import Entry, decode, encode, group_key
from cache.tensors import to_torch
from protos import vision_pb2
from rpc.errors import NotFound
from tests.cache.servers import Server, free_port
from tests.families import FAMILIES, oracle
from tests.videos.clips import drawn, png_frames
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.worker import Running, counted, refused, running
from vision_server.encoder import Embedding, VisionTower
from vision_server.frame_groups import group_digests
from vision_server.preprocess import PreparedImage
from vision_server.sources import VideoFrames

FRAMES = png_frames(drawn(10))
# Four groups each, of which three are the same.
FIRST, NEXT = FRAMES[:8], FRAMES[2:]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The patches that each forward of a tower is given."""
    seen: list[int] = []
    real = VisionTower.encode

    def counting(self: VisionTower, images: Sequence[PreparedImage], *, give_up: bool = False) -> list[Embedding]:
        seen.append(sum(len(image.patches) for image in images))
        return real(self, images, give_up=give_up)

    monkeypatch.setattr(VisionTower, "encode", counting)
    return seen


async def show(worker: Running, frames: Sequence[bytes], tenant: str = "") -> vision_pb2.Image:
    sources = [vision_pb2.VideoFrame(image=one) for one in frames]
    request = vision_pb2.EncodeRequest(tenant=tenant, frames=vision_pb2.VideoFrames(frames=sources))
    answer: vision_pb2.Image = await worker.stub.Encode(request)
    return answer


def prepared(worker: Running, frames: Sequence[bytes]) -> PreparedImage:
    return worker.worker.videos.prepare(VideoFrames(tuple(frames), 2.0))


def keys_of(worker: Running, frames: Sequence[bytes], tenant: str = "public") -> list[str]:
    """Where the groups of these frames are kept."""
    return [group_key(digest, worker.fingerprint, tenant) for digest in group_digests(prepared(worker, frames))]


def values(entry: Entry) -> list[bytes]:
    return [bytes(tensor.data) for tensor in entry.tensors]


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_next_clip_has_only_its_new_group_encoded(
    checkpoint: MakeCheckpoint, server: Server, rows: list[int], family: str
) -> None:
    """Three of four groups are reused, and the entry is bitwise that of the clip encoded whole, and transformers'."""
    async with running(checkpoint(family), server.url) as worker:
        first = await show(worker, FIRST)
        assert rows == [4 * first.grid.h * first.grid.w]
        reused = counted("lookonce_frame_groups_reused_total")
        encoded = counted("lookonce_frame_groups_encoded_total")
        clip = await show(worker, NEXT)
        assert not clip.cached
        assert rows[1:] == [clip.grid.h * clip.grid.w]
        assert counted("lookonce_frame_groups_reused_total") == reused + 3
        assert counted("lookonce_frame_groups_encoded_total") == encoded + 1
        composed = await worker.entry(clip.image_id)
        whole_clip = prepared(worker, NEXT)
    async with running(checkpoint(family), frame_group_ttl_s=0) as worker:
        assert (await show(worker, NEXT)).image_id == clip.image_id
        assert rows[2:] == [len(whole_clip.patches)]
        alone = await worker.entry(clip.image_id)
        assert replace(alone, tensors=(), created=0) == replace(composed, tensors=(), created=0)
        assert values(alone) == values(composed)
    with torch.no_grad():
        grid = torch.tensor([whole_clip.grid])
        model = oracle.load(checkpoint(family)).model.model
        expected = model.get_video_features(whole_clip.patches, grid, return_dict=True)
    layers = [layer[0] if isinstance(layer, tuple) else layer for layer in getattr(expected, "deepstack_features", [])]
    for tensor, theirs in zip(composed.tensors, [torch.cat(list(expected.pooler_output)), *layers], strict=True):
        assert (to_torch(tensor) - theirs).abs().max() <= 2e-5 * theirs.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_tower_encodes_a_group_alone_as_in_the_video(checkpoint: MakeCheckpoint, family: str) -> None:
    """In transformers' own tower no temporal patch knows of another one, nor of its place: the ground of it all."""
    tower = oracle.load(checkpoint(family)).model.model.visual
    inputs = tower.patch_embed.proj.weight[0].numel()
    patches, grid = torch.randn(3 * 8 * 12, inputs, generator=torch.Generator().manual_seed(1)), (3, 8, 12)
    with torch.no_grad():
        whole = tower(patches, grid_thw=torch.tensor([grid]), return_dict=True)
        groups = [
            tower(group, grid_thw=torch.tensor([[1, 8, 12]]), return_dict=True) for group in reversed(patches.chunk(3))
        ][::-1]
    torch.testing.assert_close(
        torch.cat([group.pooler_output for group in groups]), whole.pooler_output, atol=1e-5, rtol=1e-5
    )
    for place, layer in enumerate(getattr(whole, "deepstack_features", None) or []):
        joined = torch.cat([group.deepstack_features[place] for group in groups])
        torch.testing.assert_close(joined, layer, atol=1e-5, rtol=1e-5)


async def test_a_group_that_is_not_sound_is_encoded_again(model: Path, server: Server, rows: list[int]) -> None:
    """Damaged, foreign, forged and missing groups are counted, encoded again and put in place; none is shown."""
    async with running(model, server.url) as worker:
        clip = await show(worker, FIRST)
        sound = values(await worker.entry(clip.image_id))
        keys = keys_of(worker, FIRST)
        kept: list[Any] = [server.client.get(key) for key in keys]
        made = decode(kept[2], expected_key=keys[2], expected_fingerprint=worker.fingerprint)
        nan = replace(made.tensors[0], data=memoryview(b"\xff" * made.tensors[0].data.nbytes))
        h, w = made.grid[1:]
        turned = replace(made, grid=(1, w, h))
        before = {reason: counted("lookonce_entries_damaged_total", reason=reason) for reason in REASONS}
        rounds = (
            (kept[0][:-5] + bytes([kept[0][-5] ^ 1]) + kept[0][-4:], kept[0], encode(replace(made, tensors=(nan,)))),
            (b"\x80\x04\x95" + bytes(2000), kept[1][:-1], encode(turned)),
        )
        for forged in rounds:
            for key, value in zip(keys, forged, strict=False):
                server.client.set(key, value)
            server.client.delete(keys[3], worker.key(clip.image_id))
            server.client.rpush(keys[3], "no string")
            rows.clear()
            assert (await worker.fetch(clip.image_id))[1]
            assert rows == [4 * h * w]
            assert values(await worker.entry(clip.image_id)) == sound
            server.client.delete(worker.key(clip.image_id))
            assert (await worker.fetch(clip.image_id))[1]
            assert rows == [4 * h * w]
        after = {reason: counted("lookonce_entries_damaged_total", reason=reason) for reason in REASONS}
        assert {reason: after[reason] - before[reason] for reason in REASONS} == dict.fromkeys(REASONS, 1)


# Of the rounds above, in order.
REASONS = ("checksum", "key", "values", "magic", "truncated", "grid")


async def test_a_deleted_video_takes_its_groups_along(model: Path, server: Server) -> None:
    """Its groups go with it, those that another video shows too, which keeps its entry; a lost list changes nothing."""
    async with running(model, server.url) as worker:
        first, clip = await show(worker, FIRST), await show(worker, NEXT)
        assert await worker.delete(first.image_id)
        assert server.client.exists(*keys_of(worker, FIRST)) == 0
        assert server.client.exists(*keys_of(worker, NEXT)[-1:]) == 1
        assert (await show(worker, NEXT)).cached
        for listed in server.client.scan_iter("lookonce:*:groups:*"):
            server.client.set(listed, b"x" + server.client.get(listed)[1:])
        assert await worker.delete(clip.image_id)
        assert list(server.client.scan_iter("*:group:*")) == []
        async with refused(NotFound):
            await worker.get(clip.image_id)
        first = await show(worker, FIRST)
        server.client.delete(*server.client.scan_iter("lookonce:*:groups:*"))
        assert await worker.delete(first.image_id)
        assert server.client.keys("*:group:*") == []


async def test_another_tenant_reuses_nothing(model: Path, server: Server, rows: list[int]) -> None:
    """The same frames of another tenant are encoded again, and deleting them leaves the first one's."""
    async with running(model, server.url) as worker:
        await show(worker, FIRST, "one")
        other = await show(worker, NEXT, "two")
        assert rows == [4 * other.grid.h * other.grid.w] * 2
        assert await worker.delete(other.image_id, "two")
        assert server.client.exists(*keys_of(worker, FRAMES, "one")) == 4
        assert server.client.exists(*keys_of(worker, FRAMES, "two")) == 0


async def test_groups_are_kept_for_their_own_time(model: Path, server: Server, rows: list[int]) -> None:
    """They expire before the video does, frames that stand still are one group, and with 0 none is kept."""
    async with running(model, server.url, frame_group_ttl_s=60) as worker:
        clip = await show(worker, FRAMES[:1] * 8)
        assert rows == [clip.grid.h * clip.grid.w]
        [key] = set(keys_of(worker, FRAMES[:1] * 8))
        assert 0 < server.client.ttl(key) <= 60
        assert server.client.ttl(worker.key(clip.image_id)) > 60
    async with running(model, server.url, frame_group_ttl_s=0) as worker:
        await show(worker, NEXT)
        assert server.client.keys("*:group:*") == [key.encode()]
        # The list of what was kept before is still followed.
        assert await worker.delete(clip.image_id)
        assert server.client.keys("*:group*") == []


async def test_without_a_store_videos_are_encoded_whole(model: Path, rows: list[int]) -> None:
    """Groups that cannot be read or kept fail no request."""
    async with running(model, f"redis://127.0.0.1:{free_port()}/0", store_timeout_s=1) as worker:
        for frames in (FIRST, NEXT):
            clip = await show(worker, frames)
            assert clip.entry_bytes == len((await worker.fetch(clip.image_id))[0])
        assert rows == [4 * clip.grid.h * clip.grid.w] * 2
