"""Answers put together: one question's fault stays its own, and one request stands on one fingerprint."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from cache import Entry, StoreLimits, encode, entry_key
from cache.memory_store import MemoryStore
from cache.tensors import from_torch
from lm_server.answering import Answerer, TokenLimits
from lm_server.constraints import Constraint
from lm_server.entries import EntryLibrary, EntryShape
from lm_server.grammars import GrammarLibrary
from lm_server.request_run import Done, Piece
from lm_server.requests import Ask, ImagePart, Turn
from lm_server.sampler import Sampling
from protos import language_pb2
from rpc.errors import Internal, InvalidArgument, NotFound, Overloaded, RpcError
from rpc.places import Places
from tests.lm_server.workshop import Bench, Workshop, ask

IMAGE_ID = "img_" + "a" * 40
OLD, NEW = "0" * 32, "1" * 32


class FakePairing:
    """A pairing with no reachable vision worker, whose fingerprint a test may change."""

    def __init__(self) -> None:
        self.fingerprint = OLD

    def require_fingerprint(self) -> str:
        return self.fingerprint

    def dtype_of(self, fingerprint: str) -> str | None:
        return None

    def peers_for(self, image_id: str) -> list[Any]:
        return []


class HookedStore(MemoryStore):
    """A store that does something before it answers."""

    before: Callable[[], Awaitable[None]] | None = None

    async def get(self, key: str) -> bytes | None:
        if self.before is not None:
            await self.before()
        return await super().get(key)


class Desk:
    """An answerer over a real engine, a store in memory, and a pairing of the test's own."""

    def __init__(self, bench: Bench) -> None:
        shop = bench.shop
        text = shop.model.config.text_config
        self.engine, self.shop = bench.engine, shop
        self.pairing, self.store = FakePairing(), HookedStore(StoreLimits())
        shape = EntryShape(text.hidden_size, 0, shop.merge_size)
        pairing: Any = self.pairing
        self.library = EntryLibrary(self.store, pairing, shape, local_bytes=1 << 20, fetch_timeout_s=1.0)
        self.grammars = GrammarLibrary(shop.vocabulary, max_kept=4, cpu_s=0.4)
        self.answerer = Answerer(bench.engine, shop.prompts, self.library, self.grammars, TokenLimits(10_000, 8))

    async def keep(self, number: int, fingerprint: str) -> None:
        """Stores a picture's entry as a vision worker of this fingerprint would."""
        reference, embedding = self.shop.image(number)
        key = entry_key(IMAGE_ID, fingerprint, "public")
        entry = Entry(
            key=key,
            fingerprint=fingerprint,
            grid=reference.grid,
            width=84,
            height=56,
            image_bytes=1,
            created=1,
            tensors=(from_torch("embedding", embedding.merged),),
            merge_size=self.shop.merge_size,
        )
        await self.store.put(key, encode(entry), 60)

    async def ask(self, asks: Sequence[Ask], tenant: str = "") -> dict[int, "language_pb2.Answer | RpcError"]:
        """The outcome of every question, by place."""
        outcomes = {}
        async for event in self.answerer.answer(tenant, asks):
            if isinstance(event, Done):
                assert event.index not in outcomes
                outcomes[event.index] = event.outcome
            else:
                assert isinstance(event, Piece)
                assert event.index not in outcomes
        return outcomes


@asynccontextmanager
async def desk(shop: Workshop, **engine: Any) -> AsyncIterator[Desk]:
    """A desk on a running engine."""
    with shop.engine(**engine) as bench:
        made = Desk(bench)
        yield made
    made.grammars.close()


def question(text: str, *image_ids: str, max_tokens: int = 4) -> Ask:
    """A question about images that a store may hold."""
    return Ask((Turn("user", (*map(ImagePart, image_ids), text)),), Sampling(), max_tokens)


@pytest.mark.parametrize("tenant", ["a\0b", "a:b", "{a}", "x" * 65])
async def test_a_bad_tenant_is_refused_without_images_too(one_workshop: Workshop, tenant: str) -> None:
    """A tenant's name is checked whether or not a key is made of it."""
    async with desk(one_workshop) as made:
        with pytest.raises(InvalidArgument, match="tenant"):
            await made.ask([question("Hello.")], tenant)


async def test_a_question_that_can_never_fit_fails_alone(one_workshop: Workshop) -> None:
    """Of two questions the one too large for the whole key/value memory gets an error and the other its answer."""
    async with desk(one_workshop, kv_tokens=200) as made:
        outcomes = await made.ask([question("Hello.", max_tokens=5000), question("Hello there.")])
    assert isinstance(outcomes[0], InvalidArgument)
    assert outcomes[0].reason == "CONTEXT_LENGTH_EXCEEDED"
    assert isinstance(outcomes[1], language_pb2.Answer)
    assert outcomes[1].text == one_workshop.expected(ask("Hello there."), 4).text


async def test_a_scored_question_needs_no_room_for_an_answer(one_workshop: Workshop) -> None:
    """Its `max_tokens`, which a request may have for all its questions, is none of its tokens."""
    async with desk(one_workshop) as made:
        outcomes = await made.ask([replace(question("Hello.", max_tokens=10**6), choices=("a", "b"))])
    assert isinstance(outcomes[0], language_pb2.Answer)
    assert len(outcomes[0].choices) == 2


async def test_overload_is_told_before_any_work(one_workshop: Workshop) -> None:
    """A request that the queue has no room for is refused before its images are looked for."""
    async with desk(one_workshop) as made:
        made.engine._pending = Places(1)
        with pytest.raises(Overloaded):
            await made.ask([question("What?", IMAGE_ID), question("Where?", IMAGE_ID)])


async def test_a_prefix_that_went_is_brought_again(one_workshop: Workshop) -> None:
    """A question about an image whose prefix and local entry are gone is answered from the store's entry."""
    async with desk(one_workshop) as made:
        await made.keep(1, OLD)
        for _ in range(2):
            outcomes = await made.ask([question("What is this?", IMAGE_ID)])
            assert isinstance(outcomes[0], language_pb2.Answer)
            assert outcomes[0].text == one_workshop.expected(ask("What is this?", 1), 4).text
            made.engine.forget(IMAGE_ID)
            made.library._local.delete(entry_key(IMAGE_ID, OLD, "public"))


@pytest.mark.parametrize(
    ("failure", "told"), [(ValueError("secret"), Internal), (NotFound("gone"), NotFound)], ids=["unforeseen", "known"]
)
async def test_an_image_that_cannot_be_brought_again_fails_its_question(
    one_workshop: Workshop, failure: Exception, told: type[RpcError]
) -> None:
    """When fetching what a question turned out to lack fails, in whatever way, it ends, and the engine drops it."""
    async with desk(one_workshop) as made:
        await made.keep(1, OLD)
        await made.ask([question("What is this?", IMAGE_ID)])
        made.engine.forget(IMAGE_ID)
        made.library._local.delete(entry_key(IMAGE_ID, OLD, "public"))

        async def fail() -> None:
            raise failure

        made.store.before = fail
        async with asyncio.timeout(30):
            outcomes = await made.ask([question("What is this?", IMAGE_ID), question("Hello.")])
        assert isinstance(outcomes[0], told)
        assert "secret" not in outcomes[0].message
        assert isinstance(outcomes[1], language_pb2.Answer)
        await asyncio.to_thread(made.engine.stop)
        assert made.engine.num_waiting == 0


async def test_a_new_pairing_does_not_mix_with_a_request_under_way(one_workshop: Workshop) -> None:
    """An embedding of the old vision half is never kept under the new one's name, however late the change comes."""
    async with desk(one_workshop) as made:
        await made.keep(1, OLD)
        await made.keep(2, NEW)

        async def change() -> None:
            made.pairing.fingerprint = NEW

        made.store.before = change
        before = await made.ask([question("What is this?", IMAGE_ID)])
        after = await made.ask([question("What is this?", IMAGE_ID)])
    for number, outcome in ((1, before[0]), (2, after[0])):
        assert isinstance(outcome, language_pb2.Answer)
        assert outcome.text == one_workshop.expected(ask("What is this?", number), 4).text
        assert outcome.usage.cached_tokens == 0


async def test_one_bad_grammar_fails_alone(one_workshop: Workshop) -> None:
    """Of three questions the one whose grammar is no good has its error, and the other two their answers."""
    regex = Constraint("regex", ("yes|no",))
    asks = [
        replace(question("Hello."), constraint=regex),
        replace(question("Hello."), constraint=Constraint("regex", ("(",))),
        question("Hello there."),
    ]
    async with desk(one_workshop) as made:
        outcomes = await made.ask(asks)
    assert isinstance(outcomes[0], language_pb2.Answer)
    assert outcomes[0].text in ("yes", "no")
    assert isinstance(outcomes[1], InvalidArgument)
    assert outcomes[1].reason == "INVALID_GRAMMAR"
    assert isinstance(outcomes[2], language_pb2.Answer)
    assert outcomes[2].text == one_workshop.expected(ask("Hello there."), 4).text


async def test_a_bad_grammar_of_all_questions_is_the_requests(one_workshop: Workshop) -> None:
    """Where every question has the same and it is no good, the request is refused before anything is looked up."""
    async with desk(one_workshop) as made:
        made.store.before = lambda: pytest.fail("the store was asked")
        bad = replace(question("Hello.", IMAGE_ID), constraint=Constraint("regex", ("(",)))
        with pytest.raises(InvalidArgument, match="regex"):
            await made.ask([bad, bad])
