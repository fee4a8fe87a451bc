"""One question on its way to an answer: what the scheduler knows of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

from lm_server.drafts import Drafter
from lm_server.prompt import Prompt
from lm_server.segments import Block, Segment
from lm_server.showing import ImageSpan, Positions

# An image's embedding, opaque to everything that decides.
Embedding = object


class AdapterName(Protocol):
    """An adapter, of which whatever decides knows which one it is."""

    @property
    def identity(self) -> str:
        """Differs between any two loadings."""

    @property
    def is_gone(self) -> bool:
        """It is not served any more; only what runs goes on with it."""


class State(StrEnum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt, its private tail, and what was generated.

    Attributes:
        prompt: Tokens, positions, images and cuts.
        keys: A segment key for each of the prompt's cuts.
        max_tokens: At most this many tokens are generated. 0 where choices are scored.
        choices: Token ids of each choice; given, nothing is generated.
        embeddings: By image id, for the images whose segments have to be computed.
        output: Generated token ids.
        path: Shared segments this sequence stands on, while running.
        tail: Private room for the rest of the prompt and the output, while running.
        cached_tokens: Prompt tokens that somebody else had computed or was computing at the first admission.
        num_scored: How many of the choices with several tokens have been run.
        asked_images: It waits for embeddings that were asked for.
        awaits_disk: It waits for keys and values that are being read from disk.
        num_disk_waits: How often it has done so.
        drafter: Guesses its next tokens; None where nobody does.
        tenant: Whose it is; tenants take turns.
        adapter: What its rows are computed with beside the model, to its end.
        turn: Its place among those that wait.
        forgotten_images: Ids of images of it that were deleted since it came.
        is_branched: It has been cut where it parts from what waited with it.
    """

    prompt: Prompt
    keys: tuple[bytes, ...]
    max_tokens: int
    choices: tuple[tuple[int, ...], ...] = ()
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    output: list[int] = field(default_factory=list)
    state: State = State.WAITING
    path: list[Segment] = field(default_factory=list)
    tail: Block | None = None
    cached_tokens: int | None = None
    num_scored: int = 0
    asked_images: bool = False
    awaits_disk: bool = False
    num_disk_waits: int = 0
    drafter: Drafter | None = None
    tenant: str = ""
    adapter: AdapterName | None = None
    turn: int = 0
    forgotten_images: frozenset[str] = frozenset()
    is_branched: bool = False

    @property
    def is_begun(self) -> bool:
        """Whether something was computed that only it, or whoever shares its unfinished prefix, has waited for."""
        if self.output or self.num_scored:
            return True
        if self.tail is None:
            return False
        return self.tail.num_computed > 0 or any(
            0 < segment.block.num_computed < segment.num_tokens for segment in self.path
        )

    @property
    def adapter_identity(self) -> str:
        """The adapter's; "" where it has none."""
        return "" if self.adapter is None else self.adapter.identity

    @property
    def path_tokens(self) -> int:
        """Prompt tokens that stand in shared segments."""
        return self.prompt.cuts[-1] if self.prompt.cuts else 0

    @property
    def tail_tokens(self) -> int:
        """Tokens known so far behind the path."""
        return len(self.prompt) - self.path_tokens + len(self.output)

    @property
    def segments(self) -> tuple[tuple[bytes, int, int], ...]:
        """Key, start and end of each shared segment of the prompt."""
        cuts = self.prompt.cuts
        return tuple(zip(self.keys, (0, *cuts), cuts, strict=False))

    @property
    def images_before_cuts(self) -> tuple[frozenset[str], ...]:
        """For each cut of the prompt, the images shown before it."""
        spans = self.prompt.images
        return tuple(frozenset(s.image.image_id for s in spans if s.start < cut) for cut in self.prompt.cuts)

    @property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """The choices that need rows of their own: the first token of any choice is read off the prompt's last row."""
        return tuple(choice for choice in self.choices if len(choice) > 1)

    def tokens_at(self, start: int, count: int) -> tuple[int, ...]:
        """Token ids from `start` of prompt and output together."""
        end, length = start + count, len(self.prompt)
        if end <= length:
            return self.prompt.tokens[start:end]
        output = self.output[max(start - length, 0) : end - length]
        return (*self.prompt.tokens[start:length], *output)

    def positions_at(self, start: int, count: int) -> Positions:
        """Rotary positions [3, count] from `start` of prompt and output together."""
        end, length = start + count, len(self.prompt)
        if end <= length:
            return self.prompt.positions[:, start:end]
        first = self.prompt.next_position + max(start - length, 0)
        generated = np.arange(first, self.prompt.next_position + end - length)[None].repeat(3, axis=0)
        if start >= length:
            return generated
        return np.concatenate([self.prompt.positions[:, start:], generated], axis=1)

    def images_between(self, start: int, end: int) -> tuple[ImageSpan, ...]:
        """The images that have tokens in a part of the prompt."""
        return tuple(span for span in self.prompt.images if span.start < end and span.end > start)
