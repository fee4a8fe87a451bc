"""Prefixes that come and go between memory, the host tier and disk: the whole model's tokens all the same."""

import random
import time
from pathlib import Path

import pytest

from lm_server.disk import DiskFolder
from lm_server.segments import KvLedger
from lm_server.tickets import Failed, Finished, LackingImages
from lm_server.tiers import TierCounts
from tests.lm_server.workshop import Bench, Case, Told, Workshop, ask, front_tokens, image_tokens

TOKENS = 6
PICTURES = range(1, 7)


def rounds(seed: int) -> list[list[Case]]:
    """Each picture asked about three times, in any order, one or two questions at once."""
    draw = random.Random(seed)
    pictures = [number for number in PICTURES for _ in range(3)]
    draw.shuffle(pictures)
    cases = [ask(f"Question {place}: what is it?", number) for place, number in enumerate(pictures)]
    found: list[list[Case]] = []
    while cases:
        count = draw.choice((1, 2))
        found.append(cases[:count])
        cases = cases[count:]
    return found


def for_two_images(shop: Workshop) -> int:
    """Key/value memory for two prefixes and two questions with their answers."""
    question = len(shop.prompt(ask("Question 17: what is it?", 1))) - front_tokens(shop)
    return front_tokens(shop) + 2 * (question + TOKENS)


def follow(bench: Bench, told: Told) -> None:
    """Gives a question the embeddings it asks for, to its end."""
    while True:
        match told.next():
            case Finished():
                return
            case Failed() as failed:
                raise failed.error
            case LackingImages(image_ids) as lacking:
                told.lacking.append(lacking)
                numbers = {image_id: int(image_id.removeprefix("img_")) for image_id in image_ids}
                supplied = {image_id: bench.shop.image(number)[1] for image_id, number in numbers.items()}
                bench.engine.supply(told.ticket, supplied)


def wait_for_disk(bench: Bench) -> None:
    """Until nothing is being written; the engine itself never waits for that."""
    until = time.monotonic() + 30
    while bench.engine._memory._writing and time.monotonic() < until:
        time.sleep(0.001)


def ask_all(bench: Bench, seed: int = 0) -> int:
    """Asks every round without embeddings, checks every token, and returns how often an image was asked for."""
    asked: set[tuple[int, str]] = set()
    for place, cases in enumerate(rounds(seed)):
        told_all = bench.submit([bench.shop.work(case, max_tokens=TOKENS, embeddings={}) for case in cases])
        for case, told in zip(cases, told_all, strict=True):
            follow(bench, told)
            assert told.tokens == bench.shop.expected(case, TOKENS).tokens
            wait_for_disk(bench)
            asked.update((place, image_id) for lacking in told.lacking for image_id in lacking.image_ids)
    return len(asked)


def counts(ledger: KvLedger) -> TierCounts:
    """What went between the tiers."""
    assert ledger.tiers is not None
    return ledger.tiers.counts


def test_six_images_in_memory_for_two_equal_the_whole_model(workshop: Workshop) -> None:
    """With a host tier for all of them, every image is computed once, restored ever after, and no token changes."""
    one = image_tokens(workshop)
    with workshop.engine(kv_tokens=for_two_images(workshop), host_tokens=6 * one) as bench:
        assert ask_all(bench) == len(PICTURES)
        ledger = bench.scheduler.ledger
        assert counts(ledger).restored >= 4 * one
        assert ledger.used_tokens <= ledger.budget_tokens
        assert bench.engine._memory.host_bytes <= 6 * one * bench.runner.kv_bytes_per_token


@pytest.mark.parametrize("host_images", [0, 1, 2.5])
def test_little_or_no_host_tier_changes_no_token(workshop: Workshop, host_images: float) -> None:
    """Off, or with room for one image or two and a half, the tier saves less and every token stays."""
    one = image_tokens(workshop)
    with workshop.engine(kv_tokens=for_two_images(workshop), host_tokens=int(host_images * one)) as bench:
        num_asked = ask_all(bench)
        assert num_asked > len(PICTURES)
        if host_images:
            assert counts(bench.scheduler.ledger).restored > 0
            assert counts(bench.scheduler.ledger).spilled > 0
            assert bench.engine._memory.host_bytes <= host_images * one * bench.runner.kv_bytes_per_token


def test_a_disk_tier_changes_no_token(workshop: Workshop, tmp_path: Path) -> None:
    """With a host tier for three images and a disk tier for all, images come back from disk, each token the same."""
    one = image_tokens(workshop)
    budget = {"kv_tokens": for_two_images(workshop), "host_tokens": 4 * one, "disk_tokens": 6 * one}
    with workshop.engine(**budget, disk=DiskFolder(tmp_path)) as bench:
        for seed in range(3):
            ask_all(bench, seed)
        found = counts(bench.scheduler.ledger)
        assert found.written > 0
        assert found.read > 0
        assert found.unreadable == 0
    assert not list(tmp_path.glob("lookonce-kv-*"))
