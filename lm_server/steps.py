"""What one step is: runs of rows, and how they are put together. Values only; the scheduler decides which."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from lm_server.segments import Block
from lm_server.sequence import Sequence
from lm_server.showing import ImageSpan, Positions
from lm_server.tiers import Transfer


class Logits(Enum):
    """Which rows of a run the next-token logits are wanted of; LAST includes the drafted rows, where there are any."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Contiguous rows of one block.

    Attributes:
        sequence: On whose behalf; its embeddings are used.
        block: Where the keys and values go.
        ancestors: Blocks that every row looks back at whole, outermost first.
        start: The first row's place in the block.
        tokens: [R] token ids.
        positions: [3, R] rotary positions.
        first_token: The first row's place in the sequence's prompt; images are found by it.
        images: Images with tokens among these rows.
        logits: Rows whose logits are wanted.
        choice: The tokens being scored, where the run is a choice's.
        num_drafted: So many rows at the end are of guessed tokens. They count as computed once `Scheduler.accept` has
            found them right.
    """

    sequence: Sequence
    block: Block
    ancestors: tuple[Block, ...]
    start: int
    tokens: tuple[int, ...]
    positions: Positions
    first_token: int
    images: tuple[ImageSpan, ...] = ()
    logits: Logits = Logits.NONE
    choice: tuple[int, ...] = ()
    num_drafted: int = 0

    @property
    def num_rows(self) -> int:
        """Rows of the step that this run takes."""
        return len(self.tokens)

    @property
    def end(self) -> int:
        """The block's computed tokens once the run is done, drafted ones included."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step.

    Attributes:
        runs: What to compute.
        freed: Blocks whose memory can go before the step.
        lacking_images: Sequences that cannot start without embeddings they were not given; named once.
        transfers: What is copied between the tiers before the step; what leaves the freed blocks, before they go.
    """

    runs: tuple[Run, ...]
    freed: tuple[int, ...]
    lacking_images: tuple[Sequence, ...]
    transfers: tuple[Transfer, ...] = ()


class Step:
    """A step being put together.

    Attributes:
        rows_left: Rows that may still be added.
        draft_rows_left: Of these, how many may be drafted ones.
    """

    def __init__(self, max_rows: int) -> None:
        self.runs: list[Run] = []
        self.rows_left = max_rows
        self.draft_rows_left = 0
        self._ends: dict[int, int] = {}

    def add(self, run: Run) -> None:
        """Takes a run in."""
        self.runs.append(run)
        self.rows_left = max(self.rows_left - run.num_rows, 0)
        self.draft_rows_left -= run.num_drafted
        self._ends[run.block.block_id] = run.end

    def computed(self, block: Block) -> int:
        """Tokens of the block that are computed once the step, as it stands, is done."""
        return self._ends.get(block.block_id, block.num_computed)

    def is_done(self, block: Block, num_tokens: int) -> bool:
        """Whether so many of the block are computed then."""
        return self.computed(block) >= num_tokens


def prompt_run(
    sequence: Sequence,
    block: Block,
    ancestors: tuple[Block, ...],
    block_start: int,
    computed: int,
    count: int,
    logits: Logits,
    draft: tuple[int, ...] = (),
) -> Run:
    """`count` rows of prompt and output, behind the `computed` ones of a block that begins at token `block_start`.

    `draft` are guessed tokens that would follow.
    """
    first = block_start + computed
    return Run(
        sequence=sequence,
        block=block,
        ancestors=ancestors,
        start=computed,
        tokens=(*sequence.tokens_at(first, count), *draft),
        positions=sequence.positions_at(first, count + len(draft)),
        first_token=first,
        images=sequence.images_between(first, first + count),
        logits=logits,
        num_drafted=len(draft),
    )


def branch_run(sequence: Sequence, block: Block, ancestors: tuple[Block, ...], choice: tuple[int, ...]) -> Run:
    """A choice's rows below the question's tail."""
    first = sequence.prompt.next_position
    positions = np.broadcast_to(np.arange(first, first + len(choice) - 1), (3, len(choice) - 1))
    return Run(
        sequence=sequence,
        block=block,
        ancestors=ancestors,
        start=0,
        tokens=choice[:-1],
        positions=positions,
        first_token=len(sequence.prompt),
        logits=Logits.ALL,
        choice=choice,
    )
