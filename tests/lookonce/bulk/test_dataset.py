"""Data sets on disk, laid out as `datasets.save_to_disk` does."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lookonce.bulk.errors import MissingExtra, NoSuchSource
from lookonce.bulk.sources import sources
from lookonce.bulk.work import Item
from lookonce.client.values import Question

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def save(folder: Path, *files: Sequence[dict[str, Any]], column: str = "image", batch_rows: int = 2) -> Path:
    """A data set of these files' rows: Arrow streams of several batches, and the list of them."""
    folder.mkdir(parents=True)
    listed = []
    for place, rows in enumerate(files):
        fields = [(column, IMAGE), ("question", pa.string()), ("choices", pa.list_(pa.string())), ("noise", pa.int64())]
        table = pa.Table.from_pylist(list(rows), schema=pa.schema(fields))
        name = f"data-{place:05}-of-{len(files):05}.arrow"
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=batch_rows)
        listed.append({"filename": name})
    (folder / "state.json").write_text(json.dumps({"_data_files": listed, "_fingerprint": "x"}))
    return folder


def row(data: bytes | None, path: str | None = None, **more: Any) -> dict[str, Any]:
    return {"image": {"bytes": data, "path": path}, **more}


def read(path: Path) -> list[Item]:
    found = sources([str(path)])
    items = list(found)
    assert len(found) == len(items)
    return items


def test_rows_of_all_files_are_items(tmp_path: Path) -> None:
    """Bytes or a path, a question of a row's own, over batches and files; a row without an image is a fault."""
    folder = save(
        tmp_path / "d",
        [row(b"one"), row(b"two", "two.png", question="x?", choices=["a", "b"]), row(None, "three.png")],
        [row(None)],
    )
    one, two, three, four = read(folder)
    assert [item.pictures for item in (one, two, three)] == [(b"one",), (b"two",), (str(folder / "three.png"),)]
    assert two.questions == (Question("x?", "", ("a", "b")),)
    assert (one.questions, three.questions) == ((), ())
    assert [item.name for item in (one, two, four)] == [f"{folder}#0", f"{folder}#1", f"{folder}#3"]
    assert len({item.key for item in (one, two, three, four)}) == 4
    assert four.fault == "image: there are neither bytes nor a path"


def test_splits_come_one_after_the_other(tmp_path: Path) -> None:
    """A folder of data sets is all of them, in its own order."""
    save(tmp_path / "d" / "train", [row(b"one")])
    save(tmp_path / "d" / "test", [row(b"two")])
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [item.pictures for item in read(tmp_path / "d")] == [(b"one",), (b"two",)]


def test_the_only_column_of_images_is_taken(tmp_path: Path) -> None:
    """Its name need not be "image"."""
    folder = save(tmp_path / "d", [{"photo": {"bytes": b"one", "path": None}}], column="photo")
    assert [item.pictures for item in read(folder)] == [(b"one",)]


def damage(folder: Path, what: str) -> None:
    file = folder / "data-00000-of-00001.arrow"
    match what:
        case "gone":
            file.unlink()
        case "text":
            file.write_bytes(b"x" * 100)
        case "state":
            (folder / "state.json").write_text("{")
        case "outside":
            (folder / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')


@pytest.mark.parametrize("what", ["gone", "text", "state", "outside"])
def test_a_damaged_data_set_is_told(tmp_path: Path, what: str) -> None:
    """The file at fault is named before anything is asked; no file outside the folder is opened."""
    folder = save(tmp_path / "d", [row(b"one")])
    damage(folder, what)
    with pytest.raises(NoSuchSource, match="state.json" if what in ("state", "outside") else "arrow"):
        sources([str(folder)])


def test_a_data_set_cut_short_is_told(tmp_path: Path) -> None:
    """Half a file ends the run with its name."""
    folder = save(tmp_path / "d", [row(b"x" * 1000) for _ in range(8)])
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(NoSuchSource, match="arrow: it is damaged"):
        read(folder)


def test_no_images_are_told(tmp_path: Path) -> None:
    """A data set of texts is nothing to look at."""
    folder = tmp_path / "d"
    folder.mkdir()
    table = pa.table({"text": ["x"]})
    with pa.OSFile(str(folder / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    with pytest.raises(NoSuchSource, match="no column 'image'"):
        sources([str(folder)])


def test_a_missing_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set needs the extra."""
    folder = save(tmp_path / "d", [row(b"one")])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'lookonce\[bulk\]'"):
        sources([str(folder)])
