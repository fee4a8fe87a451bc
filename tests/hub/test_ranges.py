"""The arithmetic of ranges, against sets of single bytes."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint.partial import covers, held, lacking, merged, partial_of, record_of
from hub.progress import SILENCE
from hub.ranges import coalesced, is_nearly_all
from hub.writing import PartialFile

RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair))), max_size=6
)


def as_set(ranges: object) -> set[int]:
    return {byte for begin, end in ranges for byte in range(begin, end)}  # type: ignore[attr-defined]


@given(ranges=RANGES, here=RANGES)
def test_ranges_are_sets_of_bytes(ranges: list[tuple[int, int]], here: list[tuple[int, int]]) -> None:
    """Merging keeps the bytes, in order and apart; what lacks is the difference; covering is inclusion."""
    joined = merged(ranges)
    assert as_set(joined) == as_set(ranges)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(joined))
    assert as_set(lacking(ranges, merged(here))) == as_set(ranges) - as_set(here)
    for begin, end in ranges:
        assert covers(merged(here), begin, end) == (set(range(begin, end)) <= as_set(here))


@given(ranges=st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 3000)).map(lambda p: (p[0], p[0] + p[1]))))
def test_coalescing_costs_at_most_a_hundredth(ranges: list[tuple[int, int]]) -> None:
    """All that is wanted, in no more ranges, and at most one percent beside it."""
    few = coalesced(ranges)
    assert as_set(ranges) <= as_set(few)
    assert len(few) <= len(merged(ranges))
    assert len(as_set(few)) <= 1.01 * len(as_set(ranges))


def test_small_gaps_are_closed() -> None:
    """One request in place of two where the gap is small beside them."""
    assert coalesced([(0, 1000), (1005, 2000), (2500, 3000)]) == ((0, 2000), (2500, 3000))


def test_a_whole_file_is_taken_where_it_costs_no_more() -> None:
    """A hundredth is nothing, a tenth is."""
    assert is_nearly_all([(100, 1095)], 100, 1100)
    assert not is_nearly_all([(100, 1000)], 100, 1100)


def test_only_what_was_recorded_is_here(tmp_path: Path) -> None:
    """A written range is, its neighbours are not, and it is found again after the file was closed."""
    shard = tmp_path / "x.safetensors"
    with PartialFile(shard, 100) as file:
        file.write(10, [b"ab", b"cd"], SILENCE)
    assert held(partial_of(shard)) == ((10, 14),)
    with PartialFile(shard, 100) as file:
        assert file.held == ((10, 14),)
        assert file.read(10, 14) == b"abcd"


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        "{}",
        '{"size": 99, "held": [[0, 100]]}',
        '{"size": 100, "held": [[0, 101]]}',
        '{"size": 100, "held": 1}',
    ],
)
def test_a_record_that_is_not_sound_holds_nothing(tmp_path: Path, record: str) -> None:
    """Nor does none, or one of another file."""
    partial = partial_of(tmp_path / "x.safetensors")
    partial.write_bytes(bytes(100))
    assert held(partial) == ()
    record_of(partial).write_text(json.dumps({"size": 100, "held": [[0, 100]]}))
    assert held(partial) == ((0, 100),)
    record_of(partial).write_text(record)
    assert held(partial) == ()
