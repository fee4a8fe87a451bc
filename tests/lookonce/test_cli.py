"""The command line as a whole: what it costs to start, and how it refuses."""

import subprocess
import sys

import pytest

from tests.deployment import environment, free_port
from tests.lookonce.serving import lookonce


def test_the_version_is_told() -> None:
    """--version prints one line."""
    done = lookonce("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "lookonce")


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["serve", "--help"],
        ["vision", "--help"],
        ["inspect", "--help"],
        ["ask", "x.png", "-q", "?"],
        ["warm", "--help"],
    ],
)
def test_what_needs_no_model_imports_no_torch(command: list[str]) -> None:
    """Help and questions come at once, a worker stays small: no torch, no transformers, nothing of `doctor`."""
    absent = {"torch", "transformers", "lookonce.doctor.examination"}
    script = (
        "import sys\nfrom lookonce.cli import main\n"
        f"sys.argv = ['lookonce', *{command!r}, *{['--server', 'http://127.0.0.1:1'] if 'ask' in command else []!r}]\n"
        f"try:\n    main()\nfinally:\n    print('loaded', sorted({absent} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=100, check=False
    )
    assert "loaded []" in done.stdout, done.stderr


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_worker_holds_no_other_command(half: str) -> None:
    """What a worker's plain command line imports before the worker itself: no HTTP client, no rich, no pydantic."""
    words = [half, "--model", "demo", "--listen", "127.0.0.1:0", "--cache", "memory://"]
    words += ["--vision", "a:1"] if half == "language" else []
    script = (
        "import sys\nfrom lookonce import alone, cli\n"
        "alone.with_checkpoint = lambda *_: 0\nsys.modules.update({'vision_server.main': cli, 'lm_server.main': cli})\n"
        f"cli.run = None\nsys.argv = ['lookonce', *{words!r}]\n"
        "try:\n    cli.main()\nfinally:\n"
        "    others = ('httpx', 'rich', 'pydantic', 'simpy', 'gateway', 'lookonce.client', 'lookonce.bulk')\n"
        "    print('loaded', [name for name in others if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "loaded []\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ask", "x.png"], "-q QUESTION"),
        (["ask", "x.png", "-q", "?", "--choices", "yes,,no"], "yes,no"),
        (["ask", "x.png", "-q", "?", "--server", "http://x", "--model", "demo"], "not both"),
        (["ask", "x.png", "-q", "?", "--json", "-o", "x.csv"], "not both"),
        (["ask", "x.png", "-q", "?", "--parallel", "0"], "--parallel"),
        (["warm", "x.png", "--vision", "here"], "HOST:PORT"),
        (["serve", "--model", "/nowhere"], "'/nowhere' is not a directory"),
        (["serve", "--model", "demo", "--cache-bytes", "3"], "--cache-bytes or LOOKONCE_CACHE_BYTES"),
        (["doctor", "--vision", "here"], "HOST:PORT"),
        (["gateway", "--vision", "a:1"], "--language"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments: list[str], told: str) -> None:
    """What cannot be meant ends with status 2 and says what would be right."""
    done = lookonce(*arguments)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_worker_that_cannot_read_its_environment_names_the_variable() -> None:
    """A bad LOOKONCE_ value stops a process before anything is loaded."""
    worker = ["language", "--model", "demo", "--listen", "127.0.0.1:0", "--cache", "memory://", "--vision", "a:1"]
    done = lookonce(*worker, LOOKONCE_KV_BYTES="a lot")
    assert done.returncode == 2
    assert "LOOKONCE_KV_BYTES" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ask", "gone/*.png", "-q", "?"], "no image matches gone/*.png"),
        (["ask", "gone.jsonl"], "gone.jsonl: No such file"),
        (["warm", "tests/lookonce/bulk"], "no image in the folder"),
    ],
)
def test_nothing_to_look_at_is_told(arguments: list[str], told: str) -> None:
    """A source that holds nothing is a failure in one line, told before any server is asked."""
    done = lookonce(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr


def test_a_question_without_a_server_says_how_to_start_one() -> None:
    """The failure is one line on standard error, and the status 1."""
    done = lookonce("ask", "x.png", "-q", "?", "--server", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
