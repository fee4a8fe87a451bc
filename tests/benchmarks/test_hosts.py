"""Two hosts on one machine: what is expected of them, and a whole run with a tiny checkpoint."""

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import NoNamespaces
from benchmarks.hosts import __main__ as command
from benchmarks.hosts import delaying
from benchmarks.hosts.asking import Load
from benchmarks.hosts.expected import LEAST_MBIT, PAYLOAD, Parts, crossing_mbit, measured_crossing_mbit
from benchmarks.hosts.link import two_hosts
from benchmarks.hosts.measuring import ONE, PACKED, TWO, Encoding, Hosts, Point, loads_of
from benchmarks.hosts.report import expected_ratio, markdown
from tests.deployment import free_port, wait_until

pytestmark = pytest.mark.alone

# A second to encode, a second to answer, a megabyte each way.
PARTS = Parts(1.0, 1.0, 1_000_000, 1_000_000)


@pytest.fixture(scope="module")
def can_separate() -> None:
    """Skips where namespaces cannot be made."""
    try:
        with two_hosts():
            pass
    except NoNamespaces as exc:
        pytest.skip(f"two hosts cannot be made here: {exc}")


def namespaces(owner: int) -> list[str]:
    listed = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0].endswith(f"-{owner}")]


def start(*flags: str) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "benchmarks.hosts", "--tiny", *flags]
    # Whoever started the tests may have had Ctrl-C ignored, which children inherit.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=heed)


# Six processes load torch on two pinned cores: beside other work that takes minutes.
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("can_separate")
def test_a_tiny_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """One host, two hosts and compressed entries are measured with equal answers, and the hosts are gone at the end."""
    process = start("--repeats", "1", "--rates", "200", "--delay-ms", "1", "--out", str(tmp_path))
    assert process.wait(580) == 0
    found = json.loads((tmp_path / "hosts.json").read_text())
    measured = {(point["system"], point["mbit"], point["pictures"]) for point in found["points"]}
    assert measured == {(ONE, 0, 1), (ONE, 0, 2)} | {(name, 200.0, count) for name in (TWO, PACKED) for count in (1, 2)}
    assert all(point["first_s"] and point["last_s"] for point in found["points"])
    assert found["compared"] == found["equal"] > 0
    assert found["delay_s"] == 0.001
    # An empty bucket, not the 10 Gbit/s and more of a link without one.
    assert 0 < found["reached_mbit"]["200"] < 250
    assert all(one["packing_s"] > 0 for one in found["encodings"])
    assert all(one["packed_bytes"] < one["entry_bytes"] for one in found["encodings"])
    assert "## From which rate two hosts are faster" in (tmp_path / "hosts.md").read_text()
    assert (tmp_path / "hosts.png").stat().st_size > 0
    assert namespaces(process.pid) == []


@pytest.mark.usefixtures("can_separate")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end a run without results, and the hosts are gone with everything on them."""
    process = start("--out", str(tmp_path))
    wait_until(lambda: len(namespaces(process.pid)) == 2, "both hosts")
    process.send_signal(number)
    assert process.wait(60) == command.INTERRUPTED
    assert namespaces(process.pid) == []
    assert list(tmp_path.iterdir()) == []


def test_without_root_it_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who may not make namespaces is told so, before anything is started."""
    monkeypatch.setattr("shutil.which", lambda program: f"/sbin/{program}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.main([]) == 2
    assert "need root" in capsys.readouterr().err


def test_without_iproute2_it_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where programs are missing, they are named."""
    monkeypatch.setattr("shutil.which", lambda program: None)
    assert command.main([]) == 2
    assert "no ip and no tc" in capsys.readouterr().err


def test_two_hosts_overlap_all_pictures_but_one() -> None:
    """With a fast link the slower stage sets the pace; one picture is never faster on two hosts."""
    assert PARTS.one_host_s(3) == 6
    assert PARTS.two_hosts_s(3, mbit=1e9) == pytest.approx(4)
    assert PARTS.two_hosts_s(1, mbit=16 / PAYLOAD) == pytest.approx(1 + 1 + 1)
    assert PARTS.two_hosts_s(1, mbit=1e9, delay_s=0.01) == pytest.approx(2 + 0.1)


def test_the_expected_crossing_is_where_both_take_as_long() -> None:
    """At the crossing the link takes what the overlap saves; a single picture has none."""

    def ratio(pictures: int, mbit: float) -> float:
        return PARTS.two_hosts_s(pictures, mbit) / PARTS.one_host_s(pictures)

    crossing = crossing_mbit(lambda mbit: ratio(3, mbit))
    assert crossing is not None
    assert PARTS.two_hosts_s(3, crossing) == pytest.approx(6)
    # Sixteen megabits in 4/3 s: twice that is saved, and each picture waits for the link.
    assert crossing == pytest.approx(12 / PAYLOAD)
    assert crossing_mbit(lambda mbit: ratio(1, mbit)) is None
    assert crossing_mbit(lambda mbit: 0.5) == pytest.approx(LEAST_MBIT)


def test_the_measured_crossing_lies_between_the_points_around_it() -> None:
    """It is found on the logarithm of the rate, after the last rate that loses."""
    assert measured_crossing_mbit([(10, 2.0), (1000, 0.5), (100, 1.5)]) == pytest.approx(1000**0.5 * 10)
    assert measured_crossing_mbit([(10, 0.9), (100, 0.8)]) == 10
    assert measured_crossing_mbit([(10, 2.0), (100, 1.0)]) is None
    # No more than repeats differ by: as fast, not faster.
    assert measured_crossing_mbit([(10, 2.0), (100, 0.99)]) is None


def test_loads_are_asked_once() -> None:
    """Every size alone and several at once, and the middle size with every number of questions, none twice."""
    loads = loads_of((64, 576), (1, 8), 3, (576, 8))
    assert loads == (Load(64, 8, 1), Load(576, 8, 1), Load(64, 8, 3), Load(576, 8, 3), Load(576, 1, 1), Load(576, 1, 3))


def test_the_report_tells_what_was_measured() -> None:
    """Medians, which side wins, and the crossings come from the points."""
    points = [
        Point(ONE, 0, 64, 8, 1, [2.0], [2.0]),
        Point(ONE, 0, 64, 8, 3, [3.0], [6.0]),
        *(Point(TWO, mbit, 64, 8, 1, [3.0], [3.0]) for mbit in (10.0, 1000.0)),
        Point(TWO, 10.0, 64, 8, 3, [9.0, 3.0, 4.0], [12.0, 9.0, 9.0]),
        Point(TWO, 1000.0, 64, 8, 3, [2.0], [3.0]),
        *(Point(PACKED, mbit, 64, 8, 3, [2.0], [4.5]) for mbit in (10.0, 1000.0)),
    ]
    about = {"processor": "p", "system": "s", "commit": "c"}
    encodings = [Encoding(64, 500_000, 1_000_000, 500_000, 0.008, [1.0])]
    found = Hosts(about, "command", "tiny", ("bfloat16", "float32"), 0.0, 1, {"10": 9.5}, encodings, points, 4, 4)
    text = markdown(found, "hosts")
    assert "| 1 | 64 | 8 | never | never | never |" in text
    assert "| 3 | 64 | 8 | 6.00 | 9.00 (7.02) | **3.00** (4.02) |" in text
    assert "| 3 | 64 | 8 | 10 | 9.00 | 4.50 | 0.50 |" in text
    assert "| 64 | 1.000 | 500 | 1000 | 500 | 2.00 | 8.0 | 500 |" in text
    assert "4 of 4 answers" in text
    assert expected_ratio(found, Load(64, 8, 3), 16.0 / PAYLOAD) == pytest.approx((1 + 1 + 1 + 2) / 6)


async def test_delayed_bytes_come_as_they_were_both_ways() -> None:
    """What goes through the delaying proxy comes out whole and in order, and so does the answer, to its end."""
    far, here = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    sent = os.urandom(300_000)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(-1))[::-1])
        writer.close()

    async with await asyncio.start_server(echo, *far.split(":")):
        serving = asyncio.create_task(delaying.serve(here, far, 0.01))
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection(*here.split(":"))
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent[::-1]
        writer.close()
        serving.cancel()
