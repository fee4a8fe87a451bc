"""Turns on cores, between real processes."""

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernels import Alone, Turns, TurnsUnusable, open_turns
from kernels import turns as module

HOLDER = """
import sys
from pathlib import Path
from kernels import Turns, turns as module
turns = Turns(Path(sys.argv[1]), int(sys.argv[2]), 2)
module.PATIENCE_S = float(sys.argv[3])
with turns.taken():
    print("taken", flush=True)
    sys.stdin.readline()
print("given", flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process, which has its turn when it has said so."""

    def __init__(self, path: Path, threads: int, patience_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), str(threads), str(patience_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Its next word."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def is_silent(self, seconds: float = 0.05) -> bool:
        """Whether it says nothing for a moment."""
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def may_end(self) -> None:
        """Lets it give its turn back when it has had it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def holder(path: Path, threads: int = 2, patience_s: float = module.PATIENCE_S) -> Iterator[Holder]:
    """Another process, ended at the end."""
    other = Holder(path, threads, patience_s)
    try:
        yield other
    finally:
        other.process.kill()
        other.process.communicate()


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are passed on whenever somebody waits."""
    monkeypatch.setattr(module, "QUANTUM_S", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a file for turns."""
    return tmp_path / "turns"


def has_cores(turns: Turns) -> bool:
    """Whether the cores are had at once."""
    with turns.taken():
        return not turns.is_given_up


def test_a_turn_is_waited_for(path: Path) -> None:
    """Another process waits while this one has its turn, and has its own when this one has given the cores back."""
    turns = Turns(path, 2, 2)
    with holder(path) as other:
        with turns.taken():
            _until_waiting(path)
            assert other.is_silent()
        assert other.says() == "taken"


def test_whoever_waits_is_next(path: Path) -> None:
    """A holder that passes its turn on has it back only after the one that waited has had it."""
    turns = Turns(path, 2, 2)
    with turns.taken(), holder(path) as other:
        other.may_end()
        # The other waits from some moment on; until then the turn comes back at once.
        while other.is_silent():
            turns.pass_on()
        assert not turns.is_given_up
        assert (other.says(), other.says()) == ("taken", "given")


def test_all_who_wait_look_before_the_turn_is_asked_for_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that passes its turn on leaves the cores free for a moment: two that want one each both get theirs."""
    turns = Turns(path, 2, 2)
    with turns.taken(), holder(path) as other:
        other.may_end()
        _until_waiting(path)
        paused: list[float] = []
        monkeypatch.setattr(module.time, "sleep", _noting(paused, time.sleep))
        turns.pass_on()
        assert paused[0] >= module.ALL_HAVE_LOOKED_S
        assert (other.says(), other.says()) == ("taken", "given")


def _noting(paused: list[float], sleep: Callable[[float], None]) -> Callable[[float], None]:
    def noted(seconds: float) -> None:
        paused.append(seconds)
        sleep(seconds)

    return noted


def test_a_short_turn_is_not_passed_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits has to wait until the turn is long enough."""
    turns = Turns(path, 2, 2)
    with turns.taken(), holder(path) as other:
        other.may_end()
        monkeypatch.setattr(module, "QUANTUM_S", 1e9)
        _until_waiting(path)
        turns.pass_on()
        assert other.is_silent()


def test_who_waits_is_woken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By cores that are given back, and first by the place of the next in line: nobody has to look for them."""
    monkeypatch.setattr(module, "LOOK_S", 1e4)
    monkeypatch.setattr(module, "PATIENCE_S", 1e5)
    turns = Turns(path, 2, 2)
    with holder(path) as early, ThreadPoolExecutor(1) as waiting:
        assert early.says() == "taken"
        with holder(path, patience_s=1e5) as late:
            _until_waiting(path)
            mine = waiting.submit(has_cores, turns)
            early.may_end()
            assert (early.says(), late.says()) == ("given", "taken")
            _until_waiting(path)
            assert not mine.done()
            late.may_end()
            assert mine.result(60)


def _until_waiting(path: Path) -> None:
    """Returns when a process is next."""
    while not _is_somebody_next(path):
        time.sleep(0.01)


def _is_somebody_next(path: Path) -> bool:
    """Whether a process, this one or another, has locked the place of whoever is next, the file's first byte."""
    return f":{path.stat().st_ino} 0 0\n" in Path("/proc/locks").read_text()


def test_a_dead_holder_holds_nothing(path: Path) -> None:
    """The locks of a process that was killed go with it."""
    turns = Turns(path, 2, 2)
    with holder(path) as other:
        assert other.says() == "taken"
    assert has_cores(turns)


def test_one_that_was_stopped_is_not_waited_for_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first wait in vain work goes on at once, and in turn again when the holder has let go."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    turns = Turns(path, 2, 2)
    with holder(path) as other:
        assert other.says() == "taken"
        assert not has_cores(turns)
        monkeypatch.setattr(module, "PATIENCE_S", 1e9)
        # It would wait for ever, did it wait.
        assert not has_cores(turns)
        other.may_end()
        assert other.says() == "given"
        assert has_cores(turns)


def test_cores_that_are_not_wanted_are_free(path: Path) -> None:
    """Two processes of one thread each have a core each of two, and a third has none."""
    first = Turns(path, 1, 2)
    with holder(path, 1) as other:
        assert other.says() == "taken"
        assert has_cores(first)
        with holder(path, 1) as third:
            with first.taken():
                _until_waiting(path)
                assert third.is_silent()
            assert third.says() == "taken"


def test_one_that_can_goes_on_with_the_cores_that_are_free(path: Path) -> None:
    """It begins with one of two, and has the other when that is given back."""
    turns = Turns(path, 2, 2, least=1)
    with holder(path, 1) as other:
        assert other.says() == "taken"
        with turns.taken():
            turns.pass_on()
            assert (turns.num_cores, turns.is_given_up) == (1, False)
            other.may_end()
            assert other.says() == "given"
            turns.pass_on()
            assert turns.num_cores == 2


def test_one_that_wants_more_cores_is_next_in_line(path: Path) -> None:
    """Whoever comes later waits until it has them, and then has one at the next opportunity."""
    turns = Turns(path, 2, 2, least=1)
    with holder(path, 1) as other:
        assert other.says() == "taken"
        with turns.taken(), holder(path, 1) as third:
            turns.pass_on()
            other.may_end()
            assert other.says() == "given"
            assert third.is_silent(3.0)
            turns.pass_on()
            assert turns.num_cores == 2
            _until_waiting(path)
            turns.pass_on()
            assert third.says() == "taken"
            assert turns.num_cores == 1


def test_one_that_wants_more_cores_leaves_the_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they do not come in time it goes on with those that it has, and others may be next."""
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)
    turns = Turns(path, 2, 2, least=1)
    with holder(path, 1) as other:
        assert other.says() == "taken"
        with turns.taken():
            turns.pass_on()
            assert not _is_somebody_next(path)
            assert turns.num_cores == 1


def test_workers_elsewhere_take_no_turns(path: Path) -> None:
    """Without a file, or on an accelerator, nothing is waited for and nothing is made."""
    assert isinstance(open_turns(None, 2, "cpu"), Alone)
    assert isinstance(open_turns(str(path), 2, "cuda"), Alone)
    assert not path.exists()
    assert isinstance(open_turns(str(path), 2, "cpu"), Turns)


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error says which file, and why."""
    with pytest.raises(TurnsUnusable, match="no/such/turns"):
        Turns(tmp_path / "no" / "such" / "turns", 2)
    (tmp_path / "turns.cores").write_bytes(b"")
    with pytest.raises(TurnsUnusable, match="it is no pipe"):
        Turns(tmp_path / "turns", 2)
