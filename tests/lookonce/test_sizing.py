"""How big Redis should be, held against a real one and a real language half."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lookonce.cli import app
from lookonce.sizing import KEY_BYTES, ModelFacts, Traffic, allocated_bytes, redis_bytes, sizes, transfer_s
from tests.deployment import redis_server

# Qwen2-VL-7B in bfloat16.
LARGE = ModelFacts(3584, 0, 2, 28, 4, 128, 2)
GB = 10**9


@given(st.integers(1, 10**9))
def test_what_is_allocated_is_a_little_more(num_bytes: int) -> None:
    """Never less than was asked for, and at most a quarter more but for the smallest."""
    got = allocated_bytes(num_bytes)
    assert num_bytes <= got <= max(num_bytes * 1.25, num_bytes + 16)
    assert allocated_bytes(got) == got


@pytest.mark.parametrize("value_bytes", [3000, 40_000, 300_000])
def test_a_real_server_takes_what_is_said(tmp_path: Path, value_bytes: int) -> None:
    """Memory that Redis takes for values of this length with a time to live is within 5 % of the arithmetic."""
    with redis_server(tmp_path, "redis") as server:
        client, count = server.client, 300_000_000 // value_bytes // 10
        before = client.info("memory")["used_memory"]
        value = os.urandom(value_bytes)
        with client.pipeline(transaction=False) as pipeline:
            for number in range(count):
                key = f"lookonce:{{{number:064x}}}:".ljust(KEY_BYTES - 20, "f") + ":public"
                pipeline.set(key, value, px=10**9)
            pipeline.execute()
        used = client.info("memory")["used_memory"] - before
    assert used / count == pytest.approx(redis_bytes(value_bytes), rel=0.05)


def test_a_hundred_million_images() -> None:
    """The figures that docs/sizing.md tells."""
    found = sizes(LARGE, Traffic(100_000_000, 1369, 300_000, 64 * GB, num_replicas=1))
    assert found.entry_bytes == pytest.approx(9.81e6, rel=0.01)
    assert found.total_bytes == pytest.approx(1.08e15, rel=0.02)
    assert found.num_nodes == 2 * -(-found.total_bytes // int(0.8 * 64 * GB))
    assert found.prefix_bytes == 1369 * 57_344


def test_a_link_takes_its_time() -> None:
    """10 MB over 10 Gbit/s is 8 ms."""
    assert transfer_s(10_000_000, 1e10) == pytest.approx(0.008)


def test_the_command_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens as the checkpoint's processor makes them, and every line of the table."""
    monkeypatch.setenv("COLUMNS", "120")
    result = CliRunner().invoke(app, ["size", "--model", "demo", "--images", "1000000", "--pixels", "168x168"])
    assert result.exit_code == 0, result.output
    assert "all 1,000,000 images" in result.output
    assert "36" in result.output.splitlines()[1]


@pytest.mark.parametrize(("flag", "value"), [("--pixels", "big"), ("--pixels", "0x5"), ("--dtype", "int3")])
def test_what_makes_no_sense_is_refused(flag: str, value: str) -> None:
    """By its flag, as a wrong command line."""
    result = CliRunner().invoke(app, ["size", "--model", "demo", "--images", "1", flag, value])
    assert result.exit_code == 2
    assert flag in result.output
