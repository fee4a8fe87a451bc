"""The ledger alone: what is reserved, what goes, and what is had back from a tier."""

import pytest

from lm_server.segments import KvLedger, Segment
from lm_server.tiers import Drop, Restore, Spill, Tiers


def path_of(ledger: KvLedger, *names: str, tokens: int = 10, room_tokens: int = 0) -> list[Segment] | None:
    """A path of segments, each of so many tokens, each showing an image of its name."""
    keys = [" ".join(names[: place + 1]).encode() for place in range(len(names))]
    cuts = [tokens * (place + 1) for place in range(len(names))]
    shown = [frozenset(names[: place + 1]) for place in range(len(names))]
    return ledger.acquire_path(keys, cuts, shown, room_tokens=room_tokens)


def use(ledger: KvLedger, *names: str, tokens: int = 10) -> list[Segment]:
    """A question on a path that comes, computes it and goes."""
    path = path_of(ledger, *names, tokens=tokens)
    assert path is not None
    for segment in path:
        segment.block.num_computed = segment.num_tokens
    ledger.release_path(path)
    return path


def kept(ledger: KvLedger, *names: str) -> bool:
    """Whether the last segment of the path is there."""
    return ledger.find(" ".join(names).encode()) is not None


def test_the_deepest_goes_first_though_it_is_dearer_by_the_token() -> None:
    """Attention makes a deeper segment dearer, and yet a parent stays for as long as a child stands on it."""
    ledger = KvLedger(30)
    root, child = use(ledger, "a", "b")
    assert child.worth > root.worth
    assert ledger.acquire_block(15) is not None
    assert (kept(ledger, "a"), kept(ledger, "a", "b")) == (True, False)


def test_what_is_asked_about_often_outlives_what_came_later() -> None:
    """Of two images of one size the one that was asked about three times stays, though it is the older."""
    ledger = KvLedger(25)
    for name in ("often", "often", "often", "once"):
        use(ledger, name)
    assert ledger.acquire_block(15) is not None
    assert (kept(ledger, "often"), kept(ledger, "once")) == (True, False)


def test_questions_at_the_same_time_are_one_use() -> None:
    """Twenty questions on one image at once make it no more lasting than one question does."""
    ledger = KvLedger(25)
    paths = [path_of(ledger, "many") for _ in range(20)]
    for path in paths:
        assert path is not None
        path[0].block.num_computed = 10
        ledger.release_path(path)
    use(ledger, "one")
    assert ledger.acquire_block(15) is not None
    assert (kept(ledger, "many"), kept(ledger, "one")) == (False, True)


def test_a_segment_that_was_never_computed_goes_before_any_other() -> None:
    """What nothing was computed of costs nothing to have again."""
    ledger = KvLedger(25)
    use(ledger, "old")
    cancelled = path_of(ledger, "cancelled")
    assert cancelled is not None
    ledger.release_path(cancelled)
    assert ledger.acquire_block(15) is not None
    assert (kept(ledger, "old"), kept(ledger, "cancelled")) == (True, False)


def test_nothing_is_evicted_for_what_does_not_fit() -> None:
    """A path that has no room, with what it needs besides, changes nothing, not even the path's own unused segments."""
    ledger = KvLedger(30)
    use(ledger, "a")
    use(ledger, "b")
    assert path_of(ledger, "a", "c", room_tokens=11) is None
    assert (ledger.used_tokens, ledger.unused_tokens, ledger.num_evicted_tokens) == (20, 20, 0)
    assert kept(ledger, "b")
    assert path_of(ledger, "a", "c", room_tokens=10) is not None
    assert kept(ledger, "b"), "what is only promised takes nothing yet"
    assert ledger.acquire_block(10) is not None
    assert not kept(ledger, "b")


def test_an_evicted_segment_is_spilled_and_restored() -> None:
    """A whole segment that goes is copied out of its block; wanted again it is there at once, in another block."""
    ledger = KvLedger(15, Tiers(100))
    (first,) = use(ledger, "a")
    use(ledger, "b")
    assert ledger.take_transfers() == (Spill(0, first.block.block_id, 10),)
    assert ledger.can_restore(b"a", 10)
    path = path_of(ledger, "a")
    assert path is not None
    assert path[0].is_complete
    again = ledger.take_transfers()
    assert again[0] == Restore(0, path[0].block.block_id, 10)
    assert [type(transfer) for transfer in again] == [Restore, Spill]
    ledger.release_path(path)
    use(ledger, "c")
    # Its copy is still in the host tier.
    assert [type(transfer) for transfer in ledger.take_transfers()] == []
    assert ledger.can_restore(b"a", 10)


def test_a_restored_segment_is_as_lasting_as_it_was() -> None:
    """How often an image was asked about is not forgotten on its way through the tier."""
    ledger = KvLedger(25, Tiers(100))
    for _ in range(3):
        use(ledger, "often")
    everything = ledger.acquire_block(25)
    assert everything is not None
    ledger.release_block(everything)
    for name in ("often", "once"):
        use(ledger, name)
    assert ledger.tiers is not None
    assert ledger.tiers.counts.restored == 10
    assert ledger.acquire_block(15) is not None
    assert (kept(ledger, "often"), kept(ledger, "once")) == (True, False)


def test_two_tiers_for_one_image_each_swap() -> None:
    """Where either holds a single image, the one that is wanted and the one that goes change places."""
    ledger = KvLedger(10, Tiers(10))
    use(ledger, "a")
    use(ledger, "b")
    ledger.take_transfers()
    path = path_of(ledger, "a")
    assert path is not None
    assert [type(transfer) for transfer in ledger.take_transfers()] == [Restore, Drop, Spill]
    assert ledger.can_restore(b"b", 10)


def test_half_a_segment_is_not_spilled() -> None:
    """What is not whole is dropped: there would be nothing to tell how much of it is there."""
    ledger = KvLedger(15, Tiers(100))
    path = path_of(ledger, "a")
    assert path is not None
    path[0].block.num_computed = 9
    ledger.release_path(path)
    use(ledger, "b")
    assert ledger.take_transfers() == ()
    assert not ledger.can_restore(b"a", 10)


def test_what_is_evicted_before_it_was_restored_is_not_copied_at_all() -> None:
    """A segment that is given up again before the step neither comes nor goes, and the tier still holds it."""
    ledger = KvLedger(15, Tiers(100))
    use(ledger, "a")
    use(ledger, "b")
    ledger.take_transfers()
    path = path_of(ledger, "a")
    assert path is not None
    ledger.release_path(path)
    block = ledger.acquire_block(10)
    assert block is not None
    transfers = ledger.take_transfers()
    assert [type(transfer) for transfer in transfers] == [Spill]
    assert ledger.tiers is not None
    assert ledger.tiers.counts.restored == 0
    assert ledger.can_restore(b"a", 10)
    ledger.release_block(block)
    assert path_of(ledger, "a") is not None
    assert [type(transfer) for transfer in ledger.take_transfers()] == [Restore]


def test_a_forgotten_image_is_in_no_tier() -> None:
    """Forgetting takes the image out of memory and out of the tier, whatever was cut from the same prompt with it."""
    ledger = KvLedger(25, Tiers(100))
    use(ledger, "a", "b")
    use(ledger, "c", "d")
    assert ledger.can_restore(b"a b", 10)
    ledger.forget("a")
    assert not ledger.can_restore(b"a b", 10)
    ledger.forget("d")
    assert (kept(ledger, "c"), kept(ledger, "c", "d")) == (True, False)
    assert ledger.used_tokens == ledger.unused_tokens == 10


def test_thousands_of_kept_segments_are_bookkept_exactly() -> None:
    """Five thousand segments push out five thousand others, and the room is accounted for to the token."""
    ledger = KvLedger(50_000)
    for number in range(10_000):
        use(ledger, str(number))
    assert ledger.used_tokens == 50_000
    assert ledger.num_evicted_tokens == 50_000


@pytest.mark.parametrize("tokens", [9, 11])
def test_a_segment_of_another_length_is_not_restored(tokens: int) -> None:
    """The tier gives back only exactly what is asked for."""
    ledger = KvLedger(15, Tiers(100))
    use(ledger, "a")
    use(ledger, "b")
    assert not ledger.can_restore(b"a", tokens)
