"""The hand-off's benchmark, on small values."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import hand_off
from benchmarks.hand_off import OURS, RAW, WAYS, HandOff, Timing, markdown, measure, of_raw


def test_every_way_is_measured_and_written(tmp_path: Path) -> None:
    """Over both transports every way puts and gets every size, and tables and JSON are written."""
    assert hand_off.main(["--mib", "0.5,2", "--repeats", "2", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "hand-off.json").read_text())
    measured = {(one["transport"], one["mib"], one["way"]) for one in found["timings"]}
    assert measured == {(transport, mib, way) for transport in ("tcp", "unix") for mib in (0.5, 2.0) for way in WAYS}
    assert all(len(one["put_s"]) == len(one["get_s"]) >= 2 for one in found["timings"])
    assert found["machine"]["versions"]["redis"]
    text = (tmp_path / "hand-off.md").read_text()
    assert text.count(OURS) >= 4
    assert "checksum, GB/s" in text


def test_ways_are_compared_with_raw_at_the_same_size() -> None:
    """Twice raw redis-py's seconds are half of its speed."""
    timings = [
        Timing("tcp", 1, RAW, [0.1, 0.1], [0.2, 0.2]),
        Timing("tcp", 8, RAW, [8.0], [8.0]),
        Timing("tcp", 1, OURS, [0.2, 0.2], [0.1, 0.1]),
    ]
    found = HandOff({"processor": "p", "cores": 2}, "command", "server", timings, [])
    assert of_raw(found, timings[2]) == (0.5, 2.0)
    assert f"| tcp | 1 | {OURS} | 5 | 0.50 | 10 | 2.00 |" in markdown(found)


def test_a_way_that_changes_the_bytes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that comes back otherwise than it was put ends the run."""

    class Forgetful:
        def __init__(self, address: dict[str, Any]) -> None:
            pass

        async def put(self, value: bytes) -> None:
            pass

        async def get(self) -> bytes:
            return b"other"

        async def close(self) -> None:
            pass

    monkeypatch.setattr(hand_off, "WAYS", {"forgetful": Forgetful})
    with pytest.raises(ValueError, match="forgetful"):
        asyncio.run(measure("tcp", {}, 0.1, 1))
