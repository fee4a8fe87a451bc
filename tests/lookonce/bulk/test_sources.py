"""What a command line names, as items."""

import json
import re
from pathlib import Path

import pytest

from lookonce.bulk.errors import NoSuchSource
from lookonce.bulk.sources import brings_questions, sources
from lookonce.bulk.work import Item
from lookonce.client.values import Question


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures and other files, where the test is run."""
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.png", "p/a.JPG", "p/notes.txt", "p/.hidden.png", "p/deep/c.webp", "p/.git/d.png", "odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(*given: str) -> list[str]:
    found = sources(given)
    assert len(found) == len(list(found))
    return [item.name for item in found]


@pytest.mark.usefixtures("folder")
def test_a_folder_is_every_image_below_it() -> None:
    """By their endings in either case, in the same order always; nothing hidden."""
    assert names("p") == ["p/a.JPG", "p/b.png", "p/deep/c.webp"]
    assert names("p/") == names("p")


@pytest.mark.usefixtures("folder")
def test_a_pattern_is_what_matches() -> None:
    """`**` goes through folders; what is no image does not match."""
    assert names("p/*") == ["p/a.JPG", "p/b.png"]
    assert names("p/**/*.webp", "p/[b].*") == ["p/deep/c.webp", "p/b.png"]


@pytest.mark.usefixtures("folder")
def test_what_is_named_itself_is_taken_as_it_is() -> None:
    """A file of any name, one that is not there, an id, a URL."""
    given = ["odd", "gone.png", "img_12", "image:img_12", "https://x/y.png?a=[1]"]
    assert names(*given) == given
    assert not any(map(brings_questions, [*given, "p", "p/*"]))
    assert brings_questions("q.jsonl")


@pytest.mark.usefixtures("folder")
def test_a_file_whose_name_is_a_pattern_is_a_file() -> None:
    """What is there goes before what may match."""
    Path("p/[b].png").write_bytes(b"x")
    assert names("p/[b].png") == ["p/[b].png"]


@pytest.mark.parametrize("name", ["p/deep/.none", "p/*.gif"])
def test_nothing_there_is_told(folder: Path, name: str) -> None:
    """A folder without images and a pattern without matches are mistakes."""
    (folder / "p/deep/.none").mkdir()
    with pytest.raises(NoSuchSource, match="no image"):
        sources([name])


def lines(path: Path, *records: object) -> list[Item]:
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records))
    found = sources([str(path)])
    assert len(found) == len(list(found))
    return list(found)


def test_a_line_has_its_own_questions(tmp_path: Path) -> None:
    """Both forms of a record; paths are relative to the file, ids and URLs are not touched."""
    first, second, third = lines(
        tmp_path / "q.jsonl",
        {"image": "a.png", "questions": ["x?", {"text": "y?", "id": "why", "choices": ["a", "b"], "max_tokens": 3}]},
        "",
        {"id": 7, "image": "img_1", "question": "z?", "choices": ["yes", "no"], "other": []},
        {"image": "https://x/y.png"},
    )
    assert first.pictures == (str(tmp_path / "a.png"),)
    assert first.questions == (Question("x?"), Question("y?", "why", ("a", "b"), 3))
    assert (second.id, second.name, second.questions) == ("7", "img_1", (Question("z?", "", ("yes", "no")),))
    assert (third.pictures, third.questions) == (("https://x/y.png",), ())


def test_a_line_is_the_same_item_wherever_it_stands(tmp_path: Path) -> None:
    """Its key is what it says; another question makes another item."""
    one, two = {"image": "a", "question": "x?"}, {"image": "a", "question": "y?"}
    first = [item.key for item in lines(tmp_path / "q.jsonl", one, two)]
    assert [item.key for item in lines(tmp_path / "q.jsonl", two, one)] == first[::-1]
    assert len(set(first)) == 2


def test_images_of_a_line_are_an_album(tmp_path: Path) -> None:
    """Several images make one item."""
    [item] = lines(tmp_path / "q.jsonl", {"images": ["a.png", "img_1"]})
    assert item.pictures == (str(tmp_path / "a.png"), "img_1")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("{", "not a line of JSON"),
        ("[]", "not a JSON object"),
        ("\x00", "not a line of JSON"),
        ({"question": "x?"}, "image: this field is required"),
        ({"image": 3}, "image: this is not a path"),
        ({"images": []}, "images: this is not a list of images"),
        ({"image": "a", "question": ""}, "question: this is not a question's text"),
        ({"image": "a", "questions": "x?"}, "questions: this is not a list"),
        ({"image": "a", "questions": ["x?", 3]}, r"questions\[1\]: this is neither"),
        ({"image": "a", "question": "x?", "questions": ["x?"]}, "not both"),
        ({"image": "a", "question": "x?", "choices": "yes"}, "choices is not a list"),
        ({"image": "a", "question": "x?", "choices": ["a", "a"]}, "not different texts"),
        ({"image": "a", "question": "x?", "max_tokens": 0}, "max_tokens"),
        ({"image": "a", "id": [1]}, "id: this is neither"),
    ],
)
def test_a_bad_line_is_a_fault_of_its_own(tmp_path: Path, record: object, told: str) -> None:
    """It names the field, and the lines around it are items all the same."""
    before, bad, after = lines(tmp_path / "q.jsonl", {"image": "a"}, record, {"image": "b"})
    assert not before.fault
    assert not after.fault
    assert bad.name.endswith("q.jsonl, line 2")
    assert re.search(told, bad.fault)


def test_a_file_of_questions_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Its name and why, before anything is asked."""
    with pytest.raises(NoSuchSource, match=r"gone\.jsonl: No such file"):
        sources([str(tmp_path / "gone.jsonl")])
