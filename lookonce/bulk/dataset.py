"""A data set as `datasets.save_to_disk` leaves it: a folder of Arrow files, or a folder of such folders.

Layout, from datasets' arrow_dataset.py: `state.json` lists the data files, Arrow streams in order; `dataset_dict.json`
lists the splits, a folder each. A column of images is a struct of `bytes` and `path`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lookonce.bulk.errors import MissingExtra, NoSuchSource
from lookonce.bulk.records import BadRecord, record_item
from lookonce.bulk.work import Item
from lookonce.client.pictures import Picture

STATE = "state.json"
SPLITS = "dataset_dict.json"
IMAGE_FIELDS = {"bytes", "path"}
# The other columns that mean something to us; no other column is read.
COLUMNS = frozenset({"id", "question", "questions", "choices", "max_tokens"})


def is_dataset(path: Path) -> bool:
    """Whether a folder holds a data set."""
    return (path / STATE).is_file() or (path / SPLITS).is_file()


class Dataset:
    """The rows of a data set, every split after the other.

    Raises:
        MissingExtra: pyarrow is not installed.
        NoSuchSource: the folder is damaged, or no column holds images.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = list(_files(path))
        for _, file in self._files:
            _opened(file)

    def __iter__(self) -> Iterator[Item]:
        """An item for every row; the files are mapped, not read, so that one row's bytes are in memory at a time."""
        rows: dict[Path, int] = {}
        for folder, file in self._files:
            image, names, batches = _opened(file)
            for batch in batches:
                columns = {name: batch.column(name) for name in names}
                for place in range(batch.num_rows):
                    row = rows[folder] = rows.get(folder, -1) + 1
                    record = {name: column[place].as_py() for name, column in columns.items()}
                    yield _item(f"{folder}#{row}", record, image, folder)

    def __len__(self) -> int:
        """How many rows there are; no image is read for it."""
        return sum(batch.num_rows for _, file in self._files for batch in _opened(file)[2])


def _files(path: Path) -> Iterator[tuple[Path, Path]]:
    """Each data file with the folder of its split, in order."""
    for folder in _folders(path):
        for listed in _json(folder / STATE, "_data_files"):
            name = listed.get("filename") if isinstance(listed, dict) else None
            if not isinstance(name, str) or Path(name).name != name:
                raise NoSuchSource(f"{folder / STATE} does not list the data set's files")
            yield folder, folder / name


def _folders(path: Path) -> Iterator[Path]:
    if (path / STATE).is_file():
        yield path
        return
    for split in _json(path / SPLITS, "splits"):
        if not isinstance(split, str) or Path(split).name != split:
            raise NoSuchSource(f"{path / SPLITS} does not list the data set's splits")
        yield path / split


def _json(path: Path, field: str) -> list[Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise NoSuchSource(f"cannot read {path}: is this a data set's folder?") from exc
    listed = found.get(field) if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise NoSuchSource(f"{path} has no list of {field}: is this a data set's folder?")
    return listed


def _opened(file: Path) -> tuple[str, list[str], Iterator[Any]]:
    """The column of images, all columns that are read, and the batches."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra("a data set on disk") from None
    try:
        reader = pa.ipc.open_stream(pa.memory_map(str(file)))
    except (OSError, pa.ArrowInvalid) as exc:
        raise NoSuchSource(f"cannot read {file}: it is not an Arrow file") from exc
    image = _image_column(reader.schema, file)
    return image, [image, *(name for name in reader.schema.names if name in COLUMNS)], _batches(reader, file)


def _batches(reader: Any, file: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from reader
    except (OSError, pa.ArrowInvalid) as exc:
        raise NoSuchSource(f"cannot read {file}: it is damaged") from exc


def _image_column(schema: Any, file: Path) -> str:
    """`image`, or the only column that can be one."""
    import pyarrow as pa

    found: list[str] = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and {inner.name for inner in field.type} >= IMAGE_FIELDS
    ]
    if "image" in schema.names:
        return "image"
    if len(found) != 1:
        raise NoSuchSource(f"{file}: there is no column 'image', and {len(found)} other columns of images")
    return found[0]


def _item(place: str, record: dict[str, Any], image: str, folder: Path) -> Item:
    def picture(value: Any) -> Picture:
        if isinstance(value, dict):
            data, path = value.get("bytes"), value.get("path")
        else:
            data, path = (value, None) if isinstance(value, bytes) else (None, value)
        if isinstance(data, bytes) and data:
            return data
        if isinstance(path, str) and path:
            return str(folder / path)
        raise BadRecord(f"{image}: there are neither bytes nor a path")

    try:
        return record_item(record, place, picture, image)
    except BadRecord as exc:
        return Item(key=place, name=place, pictures=(), fault=str(exc))
