"""`lookonce serve` with real processes: start, answers, and every way to end."""

import json
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.deployment import wait_until
from tests.families import make
from tests.lookonce.serving import Serve, lookonce, serving, wait_gone


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen2_vl", tmp_path_factory.mktemp("models") / "tiny", sharded=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "blue"):
        Image.new("RGB", (80, 60), colour).save(directory / f"{colour}.png")
    return sorted(map(str, directory.iterdir()))


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[Serve]:
    with serving(model, tmp_path) as started:
        started.wait_ready()
        yield started


def test_serve_answers_and_ends_on_ctrl_c(server: Serve, pictures: list[str]) -> None:
    """One terminal: both halves say what they read, questions are answered, Ctrl-C leaves nothing behind."""
    out = server.out.read_text()
    children = server.children()
    assert set(children) == {"store", "vision", "language", "gateway"}
    for line in ("vision   ready", "language ready"):
        assert line in out
    assert out.count(" parameters, ") == out.count(" read in ") == 2
    assert server.url in out

    [store_directory] = server.temporary.iterdir()
    assert stat.S_IMODE(store_directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((store_directory / "store.sock").stat().st_mode) == 0o700

    table = lookonce("ask", *pictures, "-q", "one?", "-q", "two?", "--max-tokens", "4", "--server", server.url)
    assert table.returncode == 0, table.stderr
    assert table.stdout.count("one?") == table.stdout.count("two?") == 2
    assert "miss" in table.stdout
    assert "hit" in table.stdout
    assert "0 of 2 images needed no encoding" in table.stdout

    asked = lookonce("ask", pictures[0], "-q", "yes?", "--choices", "yes,no", "--json", "--server", server.url)
    [answer] = json.loads(asked.stdout)["answers"]
    assert sum(choice["probability"] for choice in answer["choices"]) == pytest.approx(1)
    assert json.loads(asked.stdout)["lookonce"]["image_cache"] == ["hit"]

    # Both halves have locked places in it.
    assert stat.S_IMODE((store_directory / "turns").stat().st_mode) == 0o600

    refused = lookonce("ask", __file__, "-q", "what?", "--server", server.url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: the server refused (400): ")

    assert lookonce("doctor", "--server", server.url).returncode == 0

    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0
    wait_gone(children)
    assert list(server.temporary.iterdir()) == []
    assert server.err.read_text() == ""


def test_a_child_that_dies_ends_the_rest_and_is_named(server: Serve) -> None:
    """Nothing is restarted: the dead process, how it died and its last lines are told, and the status is 1."""
    children = server.children()
    children["language"].kill()
    assert server.wait() == 1
    wait_gone(children)
    err = server.err.read_text()
    assert "error: the language process ended with signal SIGKILL; the rest was stopped" in err
    assert "serving" in err
    assert list(server.temporary.iterdir()) == []


def test_a_launcher_that_is_killed_leaves_no_process(server: Serve) -> None:
    """However the terminal goes, its processes go too."""
    children = server.children()
    server.process.kill()
    wait_gone(children)


def test_a_second_ctrl_c_kills(server: Serve) -> None:
    """Where the drain hangs, a second signal ends everything at once."""
    children = server.children()
    children["gateway"].suspend()
    server.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in server.out.read_text(), "the drain to begin")
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 130
    wait_gone(children)
    assert list(server.temporary.iterdir()) == []


def test_a_checkpoint_at_fault_is_told_and_nothing_stays(model: Path, tmp_path: Path) -> None:
    """A worker that cannot start ends the whole with its faults by name."""
    broken = shutil.copytree(model, tmp_path / "broken")
    shard = sorted(broken.glob("*.safetensors"))[0]
    shard.unlink()
    with serving(broken, tmp_path) as server:
        assert server.wait() == 1
        err = server.err.read_text()
        assert "error: the vision process ended with exit code 1" in err
        assert shard.name in err
        assert list(server.temporary.iterdir()) == []


def test_a_signal_while_loading_ends_everything(model: Path, tmp_path: Path) -> None:
    """Ctrl-C does not wait for a checkpoint to be read."""
    with serving(model, tmp_path) as server:
        wait_until(lambda: "store" in server.out.read_text(), "the store")
        wait_until(lambda: len(server.children()) >= 2, "a worker to be started")
        children = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        wait_gone(children)
        assert list(server.temporary.iterdir()) == []


def test_a_taken_port_is_one_clear_line() -> None:
    """The port is named, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = lookonce("serve", "--model", "demo", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port}: Address already in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_wants_tokens_starts_and_refuses_strangers(
    model: Path, pictures: list[str], tmp_path: Path
) -> None:
    """The launcher needs no token to see that all is ready; a question needs one. Settings may be variables."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret alice\n")
    with serving(model, tmp_path, "--cache", "memory://", LOOKONCE_TOKENS_FILE=str(tokens)) as server:
        server.wait_ready()
        assert "store" not in server.children()
        asked = ["ask", pictures[0], "-q", "what?", "--max-tokens", "2", "--server", server.url]
        refused = lookonce(*asked)
        assert (refused.returncode, "refused (401)" in refused.stderr) == (1, True)
        assert lookonce(*asked, LOOKONCE_TOKEN="secret").returncode == 0
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_ask_starts_a_server_of_its_own(model: Path, pictures: list[str]) -> None:
    """`ask --model` needs no server; standard output holds the answers alone."""
    done = lookonce("ask", pictures[0], "-q", "what?", "--model", str(model), "--max-tokens", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["answers"]) == 1
    assert "language ready" in done.stderr
