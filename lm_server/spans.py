"""The rows of a step in groups, each with the ranges of key/value memory that it sees, for the compiled attention."""

from collections.abc import Mapping, Sequence

from kernels.native import MAX_ROWS, Group, Range
from lm_server.kv import KvMemory
from lm_server.steps import Run

# With fewer a group's keys are laid out again too often.
LEAST_ROWS = 16


def groups_of(runs: Sequence[Run], memory: KvMemory, ends: Mapping[int, int], threads: int) -> list[Group]:
    """Groups of neighbouring rows that look back at the same blocks; a long run is cut, short ones are joined.

    `ends` has the tokens of the blocks that this very step writes. With more threads there are more groups.
    """
    most = min(max(-(-2 * sum(run.num_rows for run in runs) // threads), LEAST_ROWS), MAX_ROWS)
    groups: list[Group] = []
    pieces: list[Range] = []
    row = 0
    for run, after in zip(runs, (*runs[1:], None), strict=True):
        start, left = memory.start(run.block), run.num_rows
        while left:
            first = pieces[0].first_row if pieces else row
            count = min(left, first + most - row)
            pieces.append(Range(row, row + count, start, run.end - left + 1, 1))
            row, left = row + count, left - count
            if row - first == most or (not left and (after is None or after.ancestors != run.ancestors)):
                groups.append(Group(first, row, (*_lookbacks(run, memory, ends, first, row), *pieces)))
                pieces = []
    return groups


def _lookbacks(run: Run, memory: KvMemory, ends: Mapping[int, int], first: int, end: int) -> list[Range]:
    return [
        Range(first, end, memory.start(block), ends.get(block.block_id, block.num_computed)) for block in run.ancestors
    ]
