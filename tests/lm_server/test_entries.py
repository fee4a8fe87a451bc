"""The entry library: what it holds, and what it lets go."""

import asyncio

from cache import entry_key
from lm_server.entries import Source
from tests.lm_server.test_answering import IMAGE_ID, OLD, desk
from tests.lm_server.workshop import Workshop


async def test_forgetting_is_not_undone_by_a_fetch_under_way(one_workshop: Workshop) -> None:
    """An entry that arrives after its image was forgotten reaches its asker and is not kept."""
    key = entry_key(IMAGE_ID, OLD, "public")
    async with desk(one_workshop) as made:
        await made.keep(1, OLD)
        begun, release = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            await release.wait()

        made.store.before = wait
        fetching = asyncio.create_task(made.library.fetch("", IMAGE_ID, OLD))
        await begun.wait()
        made.library.forget(key)
        release.set()
        assert (await fetching).source == Source.IMAGE_SOURCE_STORE
        assert made.library.local(key) is None
        assert made.library.known_shape(key) is None
        later = await asyncio.gather(*(made.library.fetch("", IMAGE_ID, OLD) for _ in range(2)))
        assert [found.source for found in later] == [Source.IMAGE_SOURCE_STORE] * 2
        assert made.library.local(key) is not None
