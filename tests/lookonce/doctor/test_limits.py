"""What the doctor says of limits and times that do not go together."""

from typing import Any

import pytest

from lookonce.doctor.findings import Finding, Level
from lookonce.doctor.limits import judge_limits
from protos import vision_pb2
from rpc.errors import Unavailable

MIB = 1 << 20
DAY_S = 86400.0


def vision(**changed: Any) -> vision_pb2.VisionInfo:
    """A sound vision worker."""
    facts: dict[str, Any] = {
        "dtype": "bfloat16",
        "hidden_size": 1000,
        "max_image_tokens": 1000,
        "max_image_bytes": 20 * MIB,
        "max_image_pixels": 1000,
        "max_entry_bytes": 256 * MIB,
        "entry_ttl_s": DAY_S,
        "original_ttl_s": DAY_S,
    }
    return vision_pb2.VisionInfo(**facts | changed)


def problems(*infos: vision_pb2.VisionInfo, body_bytes: int | None = 128 * MIB) -> list[Finding]:
    """What is not ok about some workers."""
    replies = {f"a:{place}": info for place, info in enumerate(infos)}
    return [finding for finding in judge_limits(replies, body_bytes) if finding.level is not Level.OK]


def test_sound_limits_have_no_problem() -> None:
    """Nothing is invented, of a worker that does not answer neither."""
    assert problems(vision(), vision()) == []
    assert problems(vision(), body_bytes=None) == []
    assert not list(judge_limits({"a:1": Unavailable("gone")}, MIB))


@pytest.mark.parametrize(
    ("changed", "level", "message", "remedy"),
    [
        ({"entry_ttl_s": 60.0}, Level.WARN, "kept for 60 s", "--entry-ttl-s"),
        ({"original_ttl_s": 3600.0}, Level.WARN, "lives 3600 s", "--original-ttl-s"),
        ({"max_entry_bytes": MIB}, Level.FAIL, "--max-entry-bytes (1MiB)", "--max-image-tokens"),
        ({"max_image_bytes": 100 * MIB}, Level.WARN, "images of 100MiB", "--limit-body-bytes"),
    ],
)
def test_each_problem_is_told_with_what_mends_it(
    changed: dict[str, Any], level: Level, message: str, remedy: str
) -> None:
    """One finding for one fault, with the flag that mends it."""
    [finding] = problems(vision(**changed))
    assert finding.level is level
    assert message in finding.message
    assert remedy in finding.remedy


def test_workers_that_differ_are_told() -> None:
    """What one worker takes another would not."""
    [finding] = problems(vision(), vision(max_image_bytes=MIB))
    assert "--max-image-bytes" in finding.message
    assert "a:1: 1.04858e+06" in finding.message
