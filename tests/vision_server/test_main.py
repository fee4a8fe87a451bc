"""The process: starts, says so, drains, and refuses to start with a reason."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from protos import vision_pb2, vision_pb2_grpc
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import png

PROGRAM = """
import sys
from vision_server.main import run
from vision_server.settings import VisionSettings
sys.exit(run(VisionSettings(model=sys.argv[1], listen="127.0.0.1:0", cache=sys.argv[2], threads=1, grace_s=20)))
"""
ROOT = Path(__file__).parents[2]


def start(model: Path, cache: str = "memory://") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(model), cache],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_address(process: subprocess.Popen[str]) -> str:
    """The address in the log's ready line."""
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"vision ready address='([^']+)'", line)
        if found:
            return found[1]
    raise AssertionError("the worker ended before it was ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_worker(checkpoint: MakeCheckpoint, number: signal.Signals) -> None:
    """A running call is answered after the signal, and the process ends with status 0."""
    process = start(checkpoint("qwen2_vl"))
    try:
        address = wait_for_address(process)
        with grpc.insecure_channel(address) as channel:
            stub = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
            assert not stub.Encode(vision_pb2.EncodeRequest(image=png(1))).cached
            pending = stub.Encode.future(vision_pb2.EncodeRequest(image=png(2, 1500, 1500)))
            assert stub.GetInfo(vision_pb2.GetInfoRequest()).fingerprint
            process.send_signal(number)
            assert pending.result(timeout=60).image_id
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_signal_before_it_is_ready_ends_it(checkpoint: MakeCheckpoint) -> None:
    """A worker that is told to stop while it loads ends without a traceback."""
    process = start(checkpoint("qwen2_vl"))
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("cache", "says"),
    [("http://u:hunter2@cache", "must start with"), ("redis+cluster://u:hunter2@cache/3", "no databases")],
)
def test_a_store_that_cannot_be_is_named(checkpoint: MakeCheckpoint, cache: str, says: str) -> None:
    """A worker with an unusable store URL ends with status 1, says why, and does not repeat the URL."""
    process = start(checkpoint("qwen2_vl"), cache)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert says in log
    assert "hunter2" not in log
    assert "Traceback" not in log


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A worker without a checkpoint ends with status 1 and says what is missing."""
    process = start(tmp_path)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "config.json" in log
    assert "Traceback" not in log
