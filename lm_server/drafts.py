"""Guesses at an answer's next tokens, from earlier answers about the same image. No torch.

Drafts cost rows and never change an answer: of what is guessed, only what the model itself takes for the best next
tokens becomes part of it. Sources: speculative decoding, arXiv 2211.17192, in its greedy form; drafts looked up in
earlier text, arXiv 2304.04487.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from lm_server.prompt import Prompt

# So many tokens at the end of what is generated must occur in an earlier answer, more of them first.
MATCH_TOKENS = (4, 3, 2)
# What is kept for one image prefix is searched in every step; this bounds how long that takes.
MAX_PAGE_TOKENS = 16_384
MAX_ANSWER_TOKENS = 4_096
# Of Python's own objects, for each prefix and for each answer.
PAGE_BYTES = 1_024
ANSWER_BYTES = 256

_TYPE = "i"
_ITEM = array(_TYPE).itemsize
_BETWEEN = -1
_BETWEEN_BYTES = array(_TYPE, [_BETWEEN]).tobytes()


@dataclass(frozen=True, slots=True)
class Topic:
    """What a question is about.

    Attributes:
        prefix: Key of the deepest segment that shows an image; whoever has it has the same tenant and images.
        question: Digest of the tokens behind that segment.
        images: All that the prompt shows.
        adapter: Identity of the adapter that answers; "" for none.
    """

    prefix: bytes
    question: bytes
    images: frozenset[str]
    adapter: str = ""


def topic_of(prompt: Prompt, keys: Sequence[bytes], adapter: str = "") -> Topic | None:
    """What a prompt with these segment keys is about; None without an image, or with one behind the last segment."""
    if not prompt.images:
        return None
    last_image_end = prompt.images[-1].end
    for key, cut in zip(keys, prompt.cuts, strict=True):
        if cut >= last_image_end:
            question = np.asarray(prompt.tokens[cut:], dtype=np.int64).tobytes()
            images = frozenset(span.image.image_id for span in prompt.images)
            return Topic(key, hashlib.blake2b(question, digest_size=16).digest(), images, adapter)
    return None


@dataclass(slots=True)
class _Page:
    """The answers of one image prefix, as bytes of int32 tokens: by question, oldest first, and all in a row."""

    images: frozenset[str]
    adapter: str = ""
    answers: dict[bytes, bytes] = field(default_factory=dict)
    row: bytes = b""

    @property
    def num_bytes(self) -> int:
        return PAGE_BYTES + ANSWER_BYTES * len(self.answers) + 2 * len(self.row)

    def keep(self, question: bytes, answer: bytes) -> None:
        self.answers.pop(question, None)
        self.answers[question] = answer
        num_bytes = sum(len(each) + _ITEM for each in self.answers.values())
        while num_bytes > MAX_PAGE_TOKENS * _ITEM:
            num_bytes -= len(self.answers.pop(next(iter(self.answers)))) + _ITEM
        self.row = b"".join(each + _BETWEEN_BYTES for each in self.answers.values())

    def continued(self, question: bytes, known: bytes, num_bytes: int) -> bytes:
        """What came next, in the same question's last answer, or else where the latest tokens occurred last."""
        same = self.answers.get(question)
        if same is not None and same.startswith(known):
            return same[len(known) : len(known) + num_bytes]
        for length in MATCH_TOKENS:
            size = length * _ITEM
            place = _last_place(self.row, known[-size:]) if len(known) >= size else -1
            if place >= 0:
                return self.row[place + size : place + size + num_bytes]
        return b""


class DraftBook:
    """Earlier answers by image prefix; of prefixes whose turn was longest ago it forgets all beyond `max_bytes`.

    `max_tokens` is the most that is drafted for a step of a sequence. Owned by the engine's thread.
    """

    def __init__(self, max_tokens: int, max_bytes: int) -> None:
        self.max_tokens = max_tokens
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._pages: OrderedDict[bytes, _Page] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(page.answers) for page in self._pages.values())

    def keep(self, topic: Topic, answer: Sequence[int]) -> None:
        """Takes an answer in, without the token that ended it."""
        page = self._pages.pop(topic.prefix, None)
        if page is None:
            page = _Page(topic.images, topic.adapter)
        else:
            self.num_bytes -= page.num_bytes
        page.keep(topic.question, array(_TYPE, answer[:MAX_ANSWER_TOKENS]).tobytes())
        self._pages[topic.prefix] = page
        self.num_bytes += page.num_bytes
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._pages.popitem(last=False)[1].num_bytes

    def propose(self, topic: Topic, output: Sequence[int], most: int) -> tuple[int, ...]:
        """At most so many tokens that may come after `output`. None where an earlier answer ended there."""
        page = self._pages.get(topic.prefix)
        if page is None or most < 1:
            return ()
        self._pages.move_to_end(topic.prefix)
        found = array(_TYPE, page.continued(topic.question, array(_TYPE, output).tobytes(), most * _ITEM))
        return tuple(takewhile(lambda token: token != _BETWEEN, found))

    def forget(self, image_id: str) -> None:
        """Drops every answer to a prompt that showed the image."""
        self._drop([prefix for prefix, page in self._pages.items() if image_id in page.images])

    def forget_adapter(self, identity: str) -> None:
        """Drops every answer that the adapter gave."""
        self._drop([prefix for prefix, page in self._pages.items() if page.adapter == identity])

    def _drop(self, prefixes: Sequence[bytes]) -> None:
        for prefix in prefixes:
            self.num_bytes -= self._pages.pop(prefix).num_bytes


class Drafter:
    """What one sequence has of the book: as many tokens at a time as have lately turned out right."""

    def __init__(self, book: DraftBook, topic: Topic) -> None:
        self._book = book
        self.topic = topic
        self._length = book.max_tokens

    def propose(self, output: Sequence[int], most: int) -> tuple[int, ...]:
        """At most `most` tokens that may come after `output`."""
        return self._book.propose(self.topic, output, min(most, self._length))

    def learn(self, num_drafted: int, num_right: int) -> None:
        """Drafts twice as many after a step that got all right, and else as many as it got right; at least one."""
        if num_right == num_drafted:
            self._length = min(2 * self._length, self._book.max_tokens)
        else:
            self._length = max(num_right, 1)

    def keep(self, answer: Sequence[int]) -> None:
        """Lets later answers be drafted from this one, which is whole but for the token that ended it."""
        self._book.keep(self.topic, answer)


def num_right(draft: Sequence[int], best: Sequence[int]) -> int:
    """How many drafted tokens are what the model takes for the best, from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(draft, best, strict=False)))


def _last_place(row: bytes, pattern: bytes) -> int:
    """Where a pattern of whole tokens begins last, in bytes; -1 where it does not occur."""
    end = len(row)
    while (place := row.rfind(pattern, 0, end)) >= 0 and place % _ITEM:
        # It begins in the midst of a token.
        end = place + len(pattern) - 1
    return place
