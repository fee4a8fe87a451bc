"""Questions that begin alike are cut where they part, so that what they share is computed once. No torch.

A tree of tokens below each image prefix, as of SGLang's RadixAttention (arXiv 2312.07104), but made of what waits
together before anything of it is computed: of a batch of questions no common beginning is computed twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from lm_server.continuations import Continuations
from lm_server.prompt import text_key
from lm_server.sequence import Sequence as Question

# A cut that spares fewer rows costs more than it spares: each is a run of its own in every step.
MIN_ROWS_SPARED = 8
# Each of a sequence's cuts is looked back at apart.
MAX_CUTS = 4

Tokens = tuple[int, ...]


def branch(questions: Iterable[Question], known: Continuations) -> None:
    """Gives questions further cuts: at the ends of known segments that they begin with, and where they part.

    What is behind their last segments is text.
    """
    by_segment: dict[bytes, list[Question]] = {}
    for question in questions:
        question.is_branched = True
        _follow(question, known)
        by_segment.setdefault(stands_on(question), []).append(question)
    for alike in by_segment.values():
        tails = [_tail(question) for question in alike]
        for question, cuts in zip(alike, cuts_of(tails), strict=True):
            _cut(question, cuts)


def stands_on(question: Question) -> bytes:
    """The key of the segment that ends where the question's tail begins; of a prompt without any, whose it is."""
    if question.keys:
        return question.keys[-1]
    return f"{question.tenant}\0{question.adapter_identity}".encode()


def cuts_of(tails: Sequence[Tokens]) -> list[list[int]]:
    """For each of several texts, in tokens, after how many of them it is cut. The last token is never cut off from."""
    order = sorted(range(len(tails)), key=tails.__getitem__)
    cuts: list[list[int]] = [[] for _ in tails]
    # Neighbours of the order that share so many tokens, up to the cut before.
    waiting = [(order, 0)]
    while waiting:
        alike, before = waiting.pop()
        if len(alike) < 2:
            continue
        # Sorted: what the first and the last share, all do, and the shortest is the first of those that end there.
        first = tails[alike[0]]
        shared = _num_shared(first, tails[alike[-1]])
        longer = [place for place in alike if len(tails[place]) > shared]
        # Those that end where the others part are cut a token earlier, and the others perhaps once more.
        for group, cut in ((alike, min(shared, len(first) - 1)), (longer, shared)):
            if (cut - before) * (len(group) - 1) >= MIN_ROWS_SPARED and len(cuts[group[0]]) < MAX_CUTS:
                for place in group:
                    cuts[place].append(cut)
                before = cut
        waiting += [(list(part), before) for _, part in groupby(longer, key=lambda place: tails[place][shared])]
    return cuts


def _follow(question: Question, known: Continuations) -> None:
    found = known.longest(stands_on(question), _tail(question))
    for _ in range(MAX_CUTS):
        if found is None:
            return
        _cut(question, [found.num_tokens])
        found = known.longest(stands_on(question), _tail(question))


def _tail(question: Question) -> Tokens:
    return question.prompt.tokens[question.path_tokens :]


def _cut(question: Question, cuts: Sequence[int]) -> None:
    """Cuts a question's tail after so many of its tokens."""
    prompt, base = question.prompt, question.path_tokens
    key, start = stands_on(question), base
    for cut in cuts:
        key = text_key(key, prompt.tokens[start : base + cut])
        question.keys = (*question.keys, key)
        start = base + cut
    question.prompt = replace(prompt, cuts=(*prompt.cuts, *(base + cut for cut in cuts)))


def _num_shared(first: Tokens, second: Tokens) -> int:
    shortest = min(len(first), len(second))
    return next((place for place in range(shortest) if first[place] != second[place]), shortest)
