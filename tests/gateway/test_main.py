import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway import main
from gateway.settings import GatewaySettings
from protos import language_pb2
from tests.gateway.fakes import FakeLanguage, start_language

Events = AsyncIterator[language_pb2.GenerateEvent]
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from gateway.main import run
from gateway.settings import GatewaySettings
code = run(GatewaySettings(vision=(), language=tuple(sys.argv[2:]), port=0, grace_s=float(sys.argv[1])))
assert "torch" not in sys.modules
sys.exit(code)
"""
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


async def start_process(grace_s: float, *language: str) -> tuple[asyncio.subprocess.Process, str]:
    """A gateway process and its URL, read from its log."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(grace_s),
        *language,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb"listening url='(http://127\.0\.0\.1:\d+)'", line):
            return process, found[1].decode()
    raise AssertionError("the gateway never listened")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_an_idle_process_with_zero(number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end a gateway that has nothing to do with exit code 0, and it never imported torch."""
    process, url = await start_process(5)
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health")).status_code == 200
    process.send_signal(number)
    assert await process.wait() == 0


def times_slept(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    found = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(line.split()[1]) for text in found for line in text.splitlines() if line.startswith("voluntary"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
async def test_idle_process_is_woken_seldom() -> None:
    """A gateway that nobody asks wakes about once a second, and not to look again and again whether it shall end."""
    process, _ = await start_process(5)
    await asyncio.sleep(1)
    before = times_slept(process.pid)
    await asyncio.sleep(3)
    assert times_slept(process.pid) - before < 15
    process.terminate()
    assert await process.wait() == 0


async def test_running_stream_is_drained() -> None:
    """A stream that is running at SIGTERM is finished within the grace, and the exit code is 0."""
    fake, begun, go_on = FakeLanguage(), asyncio.Event(), asyncio.Event()

    async def slowly(request: language_pb2.GenerateRequest) -> Events:
        yield language_pb2.GenerateEvent(delta="half ")
        begun.set()
        await go_on.wait()
        yield language_pb2.GenerateEvent(done=language_pb2.Answer(text="half done", finish_reason="stop"))

    fake.script = slowly
    server, address = await start_language(fake)
    process, url = await start_process(20, address)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        reply = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await begun.wait()
        process.terminate()
        await asyncio.sleep(0.2)
        go_on.set()
        assert (await reply).text.endswith("data: [DONE]\n\n")
    assert await process.wait() == 0
    await server.drain(0)


async def test_stream_over_the_grace_ends_with_an_error() -> None:
    """A stream that outlasts the grace is told so and not cut; its call is cancelled and the exit code is 0."""
    fake, begun = FakeLanguage(), asyncio.Event()

    async def endless(request: language_pb2.GenerateRequest) -> Events:
        while True:
            yield language_pb2.GenerateEvent(delta="on ")
            begun.set()
            await asyncio.sleep(0.02)

    fake.script = endless
    server, address = await start_language(fake)
    process, url = await start_process(1, address)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        reply = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await begun.wait()
        process.terminate()
        text = (await reply).text
    assert "shutting_down" in text
    assert "[DONE]" not in text
    assert await process.wait() == 0
    async with asyncio.timeout(10):
        await fake.cancelled.wait()
    await server.drain(0)


def test_start_that_cannot_be_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port in use and a bad tokens file are exit code 1 with the reason in the log."""
    monkeypatch.setattr(main, "configure", lambda process, level: None)
    with main.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main.run(GatewaySettings(vision=(), language=(), port=port)) == 1
    assert "in use" in caplog.text
    tokens = tmp_path / "tokens"
    tokens.write_text("one-word\n")
    assert main.run(GatewaySettings(vision=(), language=(), tokens_file=str(tokens))) == 1
    assert "line 1" in caplog.text
