"""The rows of a step in groups, each with the ranges of key/value memory that it sees, for the compiled attention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from kernels.native import MAX_ROWS, Group, Range
from lm_server.kv import KvMemory
from lm_server.segments import Block
from lm_server.steps import Run

# With fewer a group's keys are laid out again too often.
LEAST_ROWS = 16


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows [first_row, end_row) of the step, of one run, behind which the run has `left` more."""

    run: Run
    first_row: int
    end_row: int
    left: int


def groups_of(runs: Sequence[Run], memory: KvMemory, ends: Mapping[int, int], threads: int) -> list[Group]:
    """Groups of neighbouring rows that look back at the same first block; a long run is cut, short ones are joined.

    `ends` has the tokens of the blocks that this very step writes. With more threads there are more groups.
    """
    most = min(max(-(-2 * sum(run.num_rows for run in runs) // threads), LEAST_ROWS), MAX_ROWS)
    return [
        Group(pieces[0].first_row, pieces[-1].end_row, (*_lookbacks(pieces, memory, ends), *_own(pieces, memory)))
        for pieces in _joined(runs, most)
    ]


def _joined(runs: Sequence[Run], most: int) -> list[list[_Piece]]:
    """The runs' rows in order, at most so many together."""
    found: list[list[_Piece]] = []
    pieces: list[_Piece] = []
    row = 0
    for run, after in zip(runs, (*runs[1:], None), strict=True):
        left = run.num_rows
        while left:
            first = pieces[0].first_row if pieces else row
            count = min(left, first + most - row)
            left -= count
            pieces.append(_Piece(run, row, row + count, left))
            row += count
            if row - first == most or (not left and (after is None or after.ancestors[:1] != run.ancestors[:1])):
                found.append(pieces)
                pieces = []
    return found


def _lookbacks(pieces: Sequence[_Piece], memory: KvMemory, ends: Mapping[int, int]) -> list[Range]:
    """What lies above the pieces' own blocks, outermost first: of neighbours below one block it is one range."""
    found: list[Range] = []
    for depth in range(max(len(piece.run.ancestors) for piece in pieces)):
        for block, below in groupby(pieces, key=partial(_ancestor, depth)):
            if block is not None:
                rows = list(below)
                seen = ends.get(block.block_id, block.num_computed)
                found.append(Range(rows[0].first_row, rows[-1].end_row, memory.start(block), seen))
    return found


def _ancestor(depth: int, piece: _Piece) -> Block | None:
    ancestors = piece.run.ancestors
    return ancestors[depth] if depth < len(ancestors) else None


def _own(pieces: Sequence[_Piece], memory: KvMemory) -> list[Range]:
    """What each piece's rows see of their own block, causally."""
    return [
        Range(p.first_row, p.end_row, memory.start(p.run.block), p.run.end - p.left - (p.end_row - p.first_row) + 1, 1)
        for p in pieces
    ]
