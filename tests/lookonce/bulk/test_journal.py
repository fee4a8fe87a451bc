"""The journal: what was done outlives a process that was killed, and is taken for nothing else."""

import json
from pathlib import Path

import pytest

from lookonce.bulk.errors import DamagedJournal, OtherRun, UnusableOutput
from lookonce.bulk.journal import Journal, digest, journal_path
from lookonce.bulk.work import Done

ASKED = {"questions": ["a?"], "choices": ("yes", "no")}


def rows_of(journal: Journal, *keys: str) -> list[object]:
    return [row["x"] for row in journal.rows(digest(key) for key in keys)]


def written(path: Path) -> Path:
    """A journal of two items, b and a, of which a failed."""
    with Journal(path, ASKED) as journal:
        journal.add("b", Done([{"x": 1}, {"x": 2}]))
        journal.add("a", Done([{"x": 3}], failed=True))
    return path


def test_rows_come_back_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    """What one process wrote the next one reads, by key, whatever the order of writing; an unknown key has no rows."""
    with Journal(written(tmp_path / "j"), ASKED) as journal:
        assert rows_of(journal, "a", "nobody", "b") == [3, 1, 2]


def test_an_item_that_failed_is_not_done(tmp_path: Path) -> None:
    """It is asked for again, and its new rows stand for the old ones."""
    with Journal(written(tmp_path / "j"), ASKED) as journal:
        assert journal.has("b")
        assert not journal.has("a")
        assert not journal.has("c")
        journal.add("a", Done([{"x": 4}]))
        assert journal.has("a")
    with Journal(tmp_path / "j", ASKED) as journal:
        assert journal.has("a")
        assert rows_of(journal, "a") == [4]


@pytest.mark.parametrize("left", range(1, 12))
def test_a_line_that_was_being_written_is_cut_off(tmp_path: Path, left: int) -> None:
    """Killed anywhere in a line, the item is missing, the others are not, and new lines come after a whole one."""
    whole = written(tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + b'{"key":"c","rows":[{"x":9}]}\n'[:left])
    with Journal(tmp_path / "j", ASKED) as journal:
        assert journal.has("b")
        assert not journal.has("c")
        journal.add("c", Done([{"x": 5}]))
        assert rows_of(journal, "b", "c") == [1, 2, 5]
    assert (tmp_path / "j").read_bytes() == whole + b'{"key":"c","rows":[{"x":5}]}\n'


@pytest.mark.parametrize("begun", [b'{"journal":1,"as', b'{"jo'])
def test_killed_within_the_first_line_it_begins_anew(tmp_path: Path, begun: bytes) -> None:
    """A header that is not whole holds nothing yet."""
    (tmp_path / "j").write_bytes(begun)
    with Journal(tmp_path / "j", ASKED) as journal:
        journal.add("a", Done([{"x": 1}]))
        assert rows_of(journal, "a") == [1]
    assert len((tmp_path / "j").read_bytes().splitlines()) == 2


def test_other_questions_are_another_run(tmp_path: Path) -> None:
    """Answers to other questions are never taken for these; beginning afresh forgets them."""
    written(tmp_path / "j")
    with pytest.raises(OtherRun, match="asked something else"):
        Journal(tmp_path / "j", {**ASKED, "questions": ["b?"]})
    with Journal(tmp_path / "j", {"other": True}, fresh=True) as journal:
        assert len(journal) == 0


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    """A journal that is open belongs to whoever has it."""
    with Journal(tmp_path / "j", ASKED), pytest.raises(OtherRun, match="another run is writing"):
        Journal(tmp_path / "j", ASKED)


@pytest.mark.parametrize("line", [b"\x00\xff", b"[1]", b"{}", b'{"key":1,"rows":[]}', b'{"key":"a","rows":3}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    """A whole line that is none of ours ends the run, with its number."""
    with written(tmp_path / "j").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(DamagedJournal, match=r"j, line 4:"):
        Journal(tmp_path / "j", ASKED)


@pytest.mark.parametrize("found", [b"a letter", b"a letter\n", b'{"json": true}\n'])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, found: bytes) -> None:
    """Somebody else's file of that name is neither read nor written over."""
    (tmp_path / "j").write_bytes(found)
    with pytest.raises(DamagedJournal, match=r"j, line 1:"):
        Journal(tmp_path / "j", ASKED)
    assert (tmp_path / "j").read_bytes() == found


def test_a_journal_is_beside_its_output(tmp_path: Path) -> None:
    """Its name is the output's and an ending; where it cannot be is told."""
    assert journal_path(Path("x/out.csv")) == Path("x/out.csv.journal")
    with pytest.raises(UnusableOutput, match="No such file"):
        Journal(tmp_path / "gone" / "j", ASKED)


def test_a_name_that_is_not_unicode_is_kept(tmp_path: Path) -> None:
    """A file's name may hold any byte."""
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    with Journal(tmp_path / "j", ASKED) as journal:
        journal.add(name, Done([{"x": name}]))
    with Journal(tmp_path / "j", ASKED) as journal:
        assert rows_of(journal, name) == [name]
    assert json.loads((tmp_path / "j").read_bytes().splitlines()[1])["key"] == name
