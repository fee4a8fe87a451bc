"""Rows as a file: JSONL, CSV or Parquet, by the file's ending. The file appears whole or not at all."""

import csv
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lookonce.bulk.errors import MissingExtra, UnusableOutput
from lookonce.bulk.work import Column, Kind, Row

# Rows of a Parquet row group: what is in memory at a time.
GROUP_ROWS = 4096
PART = ".part"

Writer = Callable[[Path, Sequence[Column], Iterable[Row]], None]


def check_output(path: Path) -> None:
    """Whether results can be written there, asked before anything is done for them.

    Raises:
        UnusableOutput: no such ending or folder, or the folder cannot be written.
        MissingExtra: a Parquet file without pyarrow.
    """
    if path.suffix not in WRITERS:
        raise UnusableOutput(f"{path}: results are written as {', '.join(WRITERS)}, by the file's ending")
    if path.is_dir():
        raise UnusableOutput(f"{path} is a folder")
    if not path.absolute().parent.is_dir():
        raise UnusableOutput(f"cannot write {path}: there is no folder {path.absolute().parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UnusableOutput(f"cannot write {path}: {path.absolute().parent} is not writable")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("a Parquet file")


def write_results(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Writes all rows, and puts the file in its place at the end. Raises `UnusableOutput`."""
    part = path.with_name(path.name + PART)
    try:
        WRITERS[path.suffix](part, columns, rows)
        part.replace(path)
    except OSError as exc:
        raise UnusableOutput(f"cannot write {path}: {exc.strerror or 'the disk failed'}") from exc
    finally:
        part.unlink(missing_ok=True)


def _jsonl(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            ordered = {column.name: row.get(column.name) for column in columns}
            file.write(_json(ordered) + "\n")


def _csv(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        writer.writerows([_cell(column, row.get(column.name)) for column in columns] for row in rows)


def _cell(column: Column, value: Any) -> Any:
    if value is None:
        return ""
    match column.kind:
        case Kind.SCORES:
            return _json(value)
        case Kind.FLAG:
            return "true" if value else "false"
        case _:
            return value


def _json(value: Any) -> str:
    # A text may hold half of a surrogate pair, as a file's name may; UTF-8 cannot, JSON's escapes can.
    text = json.dumps(value, ensure_ascii=False)
    return text if _is_utf8(text) else json.dumps(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        Kind.TEXT: pa.string(),
        Kind.INTEGER: pa.int64(),
        Kind.NUMBER: pa.float64(),
        Kind.FLAG: pa.bool_(),
        Kind.SCORES: pa.map_(pa.string(), pa.float64()),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            table = {column.name: [_value(column, row.get(column.name)) for row in group] for column in columns}
            writer.write_table(pa.table(table, schema=schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while group := list(islice(left, GROUP_ROWS)):
        yield group


def _value(column: Column, value: Any) -> Any:
    if value is None:
        return None
    if column.kind is Kind.SCORES:
        return list(value.items())
    return value.encode("utf-8", "replace").decode() if column.kind is Kind.TEXT else value


WRITERS: dict[str, Writer] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
