"""The vision path's benchmark, on a tiny checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import vision_path
from benchmarks.checkpoints import making
from benchmarks.vision_path import STAGES, Trace


def test_every_stage_is_measured_and_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage of a file, and several images in flight, have their times in tables and JSON."""
    monkeypatch.setattr(vision_path, "make", lambda name: making.make(name, tiny_checkpoint.parent))
    options = ["--recipe", "qwen2-vl-tiny", "--files", "2", "--images", "3", "--repeats", "2", "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        assert vision_path.main([*options, "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "vision-path.json").read_text())
    assert [stages["tokens"] for stages in found["stages"]] == [576, 576]
    for stages in found["stages"]:
        assert {stage: len(seconds) for stage, seconds in stages["seconds"].items()} == dict.fromkeys(STAGES, 2)
    assert len(found["together"]["whole_s"]) == 2
    for whole_s, inside_s in zip(found["together"]["whole_s"], found["together"]["inside_s"], strict=True):
        assert 0 < inside_s < whole_s
    assert "3 of the first in flight" in (tmp_path / "vision-path.md").read_text()


def test_a_trace_tells_what_went_on_at_the_same_time() -> None:
    """Times within forwards, between them, and the part of preparing that lay within them are told apart."""
    parts: Any = None
    trace = Trace(parts, parts)
    trace.forwards = [(1.0, 3.0), (4.0, 6.0)]
    trace.prepares = [(0.0, 1.0), (2.0, 3.0), (3.5, 5.5)]
    assert trace.inside_s == 4.0
    assert trace.idle_s == 1.0
    assert trace.prepared_meanwhile == 2.5 / 4.0
