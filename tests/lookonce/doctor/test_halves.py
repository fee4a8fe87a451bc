"""What the doctor says of workers and of halves that do or do not belong together."""

from typing import Any

from lookonce.doctor.findings import Finding, Level
from lookonce.doctor.halves import VisionReplies, judge_language, judge_pair, judge_vision, largest_entry_bytes
from protos import language_pb2, vision_pb2
from rpc.errors import Unavailable


def vision(**changed: Any) -> vision_pb2.VisionInfo:
    """A sound vision worker."""
    facts: dict[str, Any] = {
        "model": "m",
        "family": "qwen2_vl",
        "fingerprint": "f1",
        "checkpoint": vision_pb2.Checkpoint(config="c", vision="v", language="l"),
        "dtype": "bfloat16",
        "hidden_size": 100,
        "max_image_tokens": 10,
        "store": "redis",
        "store_healthy": True,
    }
    return vision_pb2.VisionInfo(**facts | changed)


def language(**changed: Any) -> language_pb2.LanguageInfo:
    """A sound language worker."""
    facts: dict[str, Any] = {
        "model": "m",
        "family": "qwen2_vl",
        "checkpoint_config": "c",
        "checkpoint_vision": "v",
        "checkpoint_language": "l",
        "fingerprint": "f1",
        "hidden_size": 100,
        "store": "redis",
        "store_healthy": True,
        "vision": [language_pb2.PairedWorker(address="a:1", reachable=True, paired=True, fingerprint="f1")],
    }
    return language_pb2.LanguageInfo(**facts | changed)


def levels(findings: list[Finding]) -> list[Level]:
    """How bad each is."""
    return [finding.level for finding in findings]


DOWN = Unavailable("gone")


def test_sound_workers_are_ok() -> None:
    """Nothing is invented; the fingerprint is shown."""
    findings = [*judge_vision({"a:1": vision()}), *judge_language({"b:2": language()})]
    findings += judge_pair({"a:1": vision()}, {"b:2": language()})
    assert set(levels(findings)) == {Level.OK}
    assert "f1" in findings[0].message


def test_a_silent_worker_fails() -> None:
    """A worker that does not answer is named by its address, and is not compared."""
    [finding] = judge_vision({"a:1": DOWN})
    assert (finding.level, finding.subject) == (Level.FAIL, "vision a:1")
    assert levels(list(judge_language({"b:2": DOWN}))) == [Level.FAIL]
    assert list(judge_pair({"a:1": DOWN}, {"b:2": language()})) == []


def test_vision_workers_of_different_fingerprints_fail() -> None:
    """Both fingerprints are named."""
    *_, finding = judge_vision({"a:1": vision(), "b:1": vision(fingerprint="f2")})
    assert finding.level is Level.FAIL
    assert "f1" in finding.message
    assert "f2" in finding.message


def test_halves_of_different_checkpoints_fail_and_say_where() -> None:
    """What differs is named with both values; what one half cannot know is not compared."""
    [finding] = judge_pair({"a:1": vision()}, {"b:2": language(checkpoint_language="other", checkpoint_vision="")})
    assert finding.level is Level.FAIL
    assert "language weights: l and other" in finding.message
    assert "vision weights" not in finding.message


def test_a_language_worker_tells_of_its_peers() -> None:
    """A peer that is reached and not paired fails with its problem; one that is not reached fails too."""
    unpaired = language_pb2.PairedWorker(address="a:1", reachable=True, problem="other weights")
    unreached = language_pb2.PairedWorker(address="b:1")
    _, first, second = judge_language({"b:2": language(vision=[unpaired, unreached])})
    assert (first.level, second.level) == (Level.FAIL, Level.FAIL)
    assert "other weights" in first.message
    assert "does not reach vision worker b:1" in second.message


def test_a_store_that_a_worker_does_not_reach_warns() -> None:
    """Workers go on without their store, slower."""
    assert Level.WARN in levels(list(judge_vision({"a:1": vision(store_healthy=False)})))
    assert Level.WARN in levels(list(judge_language({"a:1": language(store_healthy=False)})))


def test_halves_with_different_stores_warn() -> None:
    """A memory:// store on one side means that the other never finds an entry."""
    assert levels(list(judge_pair({"a:1": vision(store="memory")}, {"b:2": language()}))) == [Level.WARN]


def test_the_largest_entry_follows_from_the_tower() -> None:
    """Tokens × width × (1 + DeepStack) × bytes of the dtype, over all workers that answer."""
    replies: VisionReplies = {"a:1": vision(), "b:1": vision(num_deepstack=3, dtype="float32"), "c:1": DOWN}
    assert largest_entry_bytes(replies) == 10 * 100 * 4 * 4
    assert largest_entry_bytes({"c:1": DOWN}) is None
