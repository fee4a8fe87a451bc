"""Which halves belong together, judged from what each can see."""

import asyncio
import logging

import pytest

from checkpoint import CheckpointIdentity
from lm_server import pairing
from lm_server.pairing import LanguageHalf, Pairing, compared, mismatch
from protos import vision_pb2, vision_pb2_grpc
from rpc.server import GrpcServer

WHOLE = CheckpointIdentity(config="c1", vision="v1", language="l1")


def half(identity: CheckpointIdentity = WHOLE) -> LanguageHalf:
    """A language half."""
    return LanguageHalf("qwen2_vl", 64, 0, 2, 1, identity)


def info(config: str = "c1", vision: str = "v1", language: str = "l1", **other: object) -> vision_pb2.VisionInfo:
    """What a vision worker says of itself."""
    facts = {"family": "qwen2_vl", "hidden_size": 64, "spatial_merge_size": 2, "entry_format": 1, **other}
    checkpoint = vision_pb2.Checkpoint(config=config, vision=vision, language=language)
    return vision_pb2.VisionInfo(checkpoint=checkpoint, **facts)  # type: ignore[arg-type]


def test_equal_halves_belong_together() -> None:
    """Where all that both can see is equal, there is no mismatch."""
    assert mismatch(half(), info()) == ""
    assert compared(half(), info()) == "vision weights"


@pytest.mark.parametrize(
    "other", [{"family": "qwen3_vl"}, {"hidden_size": 65}, {"num_deepstack": 1}, {"entry_format": 2}, {"config": "c2"}]
)
def test_each_differing_fact_is_named_with_both_sides(other: dict[str, object]) -> None:
    """Family, sizes, entry format and configuration must be equal; the message has both values."""
    assert str(next(iter(other.values()))) in mismatch(half(), info(**other))  # type: ignore[arg-type]


def test_vision_weights_decide_where_both_see_them() -> None:
    """Other vision weights never pair; a half that was tuned further on the same tower does."""
    assert "v1" in mismatch(half(), info(vision="v2"))
    assert "v2" in mismatch(half(), info(vision="v2"))
    assert mismatch(half(), info(language="l2")) == ""


def test_language_weights_decide_where_vision_is_not_here() -> None:
    """Without the vision shards the language host compares what the vision host sees of its half."""
    alone = half(CheckpointIdentity(config="c1", vision="", language="l1"))
    assert compared(alone, info()) == "language weights"
    assert "l2" in mismatch(alone, info(language="l2"))


def test_configuration_alone_is_told() -> None:
    """Where neither host has anything of the other's half, that is what was compared, and it is said."""
    alone = half(CheckpointIdentity(config="c1", vision="", language="l1"))
    assert compared(alone, info(language="")) == "configuration"
    assert mismatch(alone, info(language="")) == ""


async def test_asking_goes_on_after_what_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One failure of asking the vision workers is logged, and they are asked again."""
    asked, again = 0, asyncio.Event()

    async def fails_once() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("unforeseen")
        again.set()

    monkeypatch.setattr(pairing, "PAIRED_INTERVAL_S", 0.0)
    made = Pairing(half(), (), max_entry_bytes=1)
    monkeypatch.setattr(made, "ask_all", fails_once)
    with caplog.at_level(logging.ERROR, logger=pairing.__name__):
        made.start()
        await asyncio.wait_for(again.wait(), 10)
    await made.close()
    assert "asking the vision workers failed" in caplog.text


class NamedVision(vision_pb2_grpc.VisionServiceServicer):
    """Says what it is."""

    async def GetInfo(self, request: vision_pb2.GetInfoRequest, context: object) -> vision_pb2.VisionInfo:  # noqa: N802
        return info(fingerprint="f1")


async def test_each_address_of_a_name_is_a_peer() -> None:
    """Vision workers join and leave as their name's addresses do; a failing resolver leaves them as they were."""
    server = GrpcServer(("lookonce.vision.v1.VisionService",), max_message_bytes=1 << 20)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(NamedVision(), server.server)  # type: ignore[no-untyped-call]
    port = await server.start("127.0.0.2:0")
    answer: list[str] = []

    async def resolve(host: str, _: int) -> list[str]:
        if not answer:
            raise OSError(f"no such host: {host}")
        return answer

    made = Pairing(half(), ("127.0.0.9:1", f"dns:v.test:{port}"), max_entry_bytes=1 << 20, resolve=resolve)
    try:
        await made.look_up()
        assert [peer.address for peer in made.peers] == ["127.0.0.9:1"]
        answer[:] = ["127.0.0.2", "127.0.0.3"]
        await made.look_up()
        await made.ask_all()
        stayed = made.peers[1]
        assert [peer.address for peer in made.peers_for("img")] == [f"127.0.0.2:{port}"]
        assert made.fingerprint == "f1"
        answer[:] = ["127.0.0.2"]
        await made.look_up()
        answer.clear()
        await made.look_up()
        assert [peer.address for peer in made.peers] == ["127.0.0.9:1", f"127.0.0.2:{port}"]
        assert made.peers[1] is stayed
    finally:
        await made.close()
        await server.drain(0)
