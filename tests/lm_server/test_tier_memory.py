"""The tiers under a running engine: what is counted, forgotten and damaged."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_server.disk import HEADER, DiskFolder
from lm_server.tiers import TierCounts
from telemetry.metrics import snapshot
from tests.lm_server.workshop import Bench, Workshop, ask, front_tokens, image_tokens

TOKENS = 4


def one_image(shop: Workshop) -> int:
    """Key/value memory for a question about one picture, in tokens."""
    return len(shop.prompt(ask("What is it?", 1))) + TOKENS


def ask_about(bench: Bench, *pictures: int) -> None:
    """Asks about each picture in turn and checks the answers."""
    for number in pictures:
        (told,) = bench.ask([ask("What is it?", number)], TOKENS)
        told.end()
        assert told.tokens == bench.shop.expected(ask("What is it?", number), TOKENS).tokens


def counts(bench: Bench) -> TierCounts:
    """What went between the tiers."""
    assert bench.scheduler.ledger.tiers is not None
    return bench.scheduler.ledger.tiers.counts


def eventually(is_so: Callable[[], bool]) -> None:
    """Waits for what the engine's thread or the disk's has yet to do."""
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)


def counted(name: str, label: str = "") -> float:
    """One of this process's counters."""
    return snapshot().get(f"{name}{{{label}}}" if label else name, 0.0)


def test_what_moves_is_counted_in_tokens_and_bytes(one_workshop: Workshop) -> None:
    """Evicted, spilled and restored tokens are counted, their bytes too, and what each tier holds is told."""
    one, image = image_tokens(one_workshop), one_image(one_workshop)
    names = [(what, f'event="{event}"') for what in ("tokens", "bytes") for event in ("evicted", "spilled", "restored")]
    before = [counted(f"lookonce_kv_{what}_total", label) for what, label in names]
    with one_workshop.engine(kv_tokens=image, host_tokens=4 * one) as bench:
        ask_about(bench, 1, 2, 1)
        token_bytes = bench.runner.kv_bytes_per_token
        added = [counted(f"lookonce_kv_{what}_total", label) for what, label in names]
        moved = [now - then for now, then in zip(added, before, strict=True)]
        assert moved == [2 * one, 2 * one, one, *(part * token_bytes for part in (2 * one, 2 * one, one))]
        in_memory = front_tokens(one_workshop) + one
        eventually(lambda: counted("lookonce_kv_held_tokens", 'tier="memory"') == in_memory)
        assert (
            counted("lookonce_kv_held_bytes", 'tier="host"') == 2 * one * token_bytes == bench.engine._memory.host_bytes
        )
        assert bench.engine.kv_bytes_used == in_memory * token_bytes


def test_a_restored_image_counts_as_cached_and_needs_no_embedding(one_workshop: Workshop) -> None:
    """What came back from the host tier was not computed again, and nobody is asked for the image."""
    with one_workshop.engine(kv_tokens=one_image(one_workshop), host_tokens=100 * image_tokens(one_workshop)) as bench:
        ask_about(bench, 1, 2)
        (told,) = bench.submit([one_workshop.work(ask("What is it?", 1), max_tokens=TOKENS, embeddings={})])
        assert told.end().cached_tokens == front_tokens(one_workshop) + image_tokens(one_workshop)
        assert told.lacking == []


def test_a_forgotten_image_is_computed_anew(one_workshop: Workshop, tmp_path: Path) -> None:
    """Out of memory, out of the host tier and out of the disk tier: a later question must bring the embedding."""
    one, image = image_tokens(one_workshop), one_image(one_workshop)
    with one_workshop.engine(
        kv_tokens=image, host_tokens=4 * one, disk_tokens=99 * one, disk=DiskFolder(tmp_path)
    ) as bench:
        ask_about(bench, 1, 2, 3, 4, 5)
        eventually(lambda: counts(bench).written > 0)
        assert bench.scheduler.ledger.num_evicted_tokens > 0
        for number in range(1, 6):
            bench.engine.forget(f"img_{number}")
        eventually(lambda: bench.engine._memory.host_bytes == 0)
        eventually(lambda: not list(tmp_path.glob("*/*.kv")))
        assert bench.engine.kv_bytes_used == front_tokens(one_workshop) * bench.runner.kv_bytes_per_token
        for number in range(1, 6):
            (told,) = bench.submit([one_workshop.work(ask("What is it?", number), max_tokens=TOKENS, embeddings={})])
            assert told.next().__class__.__name__ == "LackingImages"


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_file_is_a_miss_and_never_an_answer(one_workshop: Workshop, tmp_path: Path, damage: str) -> None:
    """Keys and values that did not come back whole are computed again; every answer stays right."""
    one, image = image_tokens(one_workshop), one_image(one_workshop)
    with one_workshop.engine(
        kv_tokens=image, host_tokens=4 * one, disk_tokens=99 * one, disk=DiskFolder(tmp_path)
    ) as bench:
        for number in range(1, 7):
            ask_about(bench, number)
            eventually(lambda: not bench.engine._memory._writing)
        files = list(tmp_path.glob("*/*.kv"))
        assert files
        for path in files:
            data = bytearray(path.read_bytes())
            data[HEADER.size + 100] ^= 4
            if damage == "delete":
                path.unlink()
            else:
                path.write_bytes(data if damage == "flip" else data[:-8])
        ask_about(bench, *range(1, 7))
        assert counts(bench).unreadable >= one
        ask_about(bench, *range(1, 7))


def test_a_stopped_engine_leaves_no_file(one_workshop: Workshop, tmp_path: Path) -> None:
    """The disk tier ends with the engine, writes that were still waiting included."""
    one, image = image_tokens(one_workshop), one_image(one_workshop)
    with one_workshop.engine(
        kv_tokens=image, host_tokens=8 * one, disk_tokens=99 * one, disk=DiskFolder(tmp_path)
    ) as bench:
        ask_about(bench, *range(1, 10))
        assert list(tmp_path.glob("lookonce-kv-*"))
    assert not list(tmp_path.glob("lookonce-kv-*"))
