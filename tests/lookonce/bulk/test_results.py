"""The three forms of results hold the same rows."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lookonce.bulk import results
from lookonce.bulk.errors import MissingExtra, UnusableOutput
from lookonce.bulk.results import check_output, write_results
from lookonce.bulk.work import Column, Kind, Row

COLUMNS = (
    Column("image"),
    Column("tokens", Kind.INTEGER),
    Column("share", Kind.NUMBER),
    Column("flagged", Kind.FLAG),
    Column("scores", Kind.SCORES),
)
ROWS: list[Row] = [
    {"image": 'é, "x"\n', "tokens": 3, "share": 0.5, "flagged": True, "scores": {"yes": 0.75, "no": 0.25}},
    {"image": "b", "tokens": None, "flagged": False, "scores": {}},
]
TOLD = [{column.name: row.get(column.name) for column in COLUMNS} for row in ROWS]


def test_jsonl_has_a_row_a_line(tmp_path: Path) -> None:
    """Every column is there, None where a row has none, in the columns' order."""
    write_results(tmp_path / "x.jsonl", COLUMNS, ROWS)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines == TOLD
    assert list(lines[1]) == [column.name for column in COLUMNS]


def test_csv_has_a_heading_and_json_within_cells(tmp_path: Path) -> None:
    """Commas, quotes and line ends survive; scores are JSON; what is not there is empty."""
    write_results(tmp_path / "x.csv", COLUMNS, ROWS)
    with (tmp_path / "x.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["image"], first["tokens"], first["share"]) == ('é, "x"\n', "3", "0.5")
    assert json.loads(first["scores"]) == {"yes": 0.75, "no": 0.25}
    assert (first["flagged"], second["flagged"], second["tokens"]) == ("true", "false", "")


def test_parquet_has_the_columns_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are numbers, scores a map, over as many row groups as it takes."""
    monkeypatch.setattr(results, "GROUP_ROWS", 1)
    write_results(tmp_path / "x.parquet", COLUMNS, ROWS)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups == 2
    assert [str(field.type) for field in file.schema_arrow][:4] == ["string", "int64", "double", "bool"]
    found = file.read().to_pylist()
    assert [{**row, "scores": dict(row["scores"])} for row in found] == TOLD


def test_no_rows_make_a_file_all_the_same(tmp_path: Path) -> None:
    """Nothing to tell is a file with the columns and no rows."""
    write_results(tmp_path / "x.parquet", COLUMNS, [])
    assert pq.read_table(tmp_path / "x.parquet").column_names == [column.name for column in COLUMNS]


@pytest.mark.parametrize("ending", results.WRITERS)
def test_a_name_that_is_not_unicode_can_be_written(tmp_path: Path, ending: str) -> None:
    """A file's name may hold any byte; it ends no run."""
    write_results(tmp_path / f"x{ending}", COLUMNS[:1], [{"image": "\udcff.png"}])
    assert (tmp_path / f"x{ending}").stat().st_size > 0


def test_what_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    """Results are put in their place whole; a part is not left behind."""

    def broken() -> Iterator[Row]:
        yield ROWS[0]
        raise KeyboardInterrupt

    (tmp_path / "x.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path / "x.csv", COLUMNS, broken())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.csv", "old")]


def test_a_full_disk_is_told() -> None:
    """What the system says of the place is one line."""
    with pytest.raises(UnusableOutput, match=r"cannot write /nowhere/x\.csv: No such file"):
        write_results(Path("/nowhere/x.csv"), COLUMNS, ROWS)


@pytest.mark.parametrize(
    ("name", "told"),
    [("x.txt", r"\.jsonl, \.csv, \.parquet"), ("gone/x.csv", "there is no folder"), ("folder.csv", "is a folder")],
)
def test_a_place_that_cannot_be_is_told_before_the_run(tmp_path: Path, name: str, told: str) -> None:
    """Nobody waits a night to hear that results cannot be written."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UnusableOutput, match=told):
        check_output(tmp_path / name)


def test_a_missing_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet needs the extra, the other forms do not."""
    monkeypatch.setattr(results.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'lookonce\[bulk\]'"):
        check_output(tmp_path / "x.parquet")
    check_output(tmp_path / "x.csv")
