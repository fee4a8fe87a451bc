"""The books of the host and the disk tier: what is copied where, in what order, and what is given up."""

from lm_server.shelf import Kept, SegmentFacts
from lm_server.tiers import Drop, Erase, Read, Restore, Spill, Tiers, Transfer, Write


def facts(name: str, tokens: int = 10, cost: float = 10.0, parent: str = "") -> SegmentFacts:
    """A segment that shows an image of its name, and its parent's."""
    shown = frozenset(filter(None, (name, parent)))
    return SegmentFacts(name.encode(), parent.encode() or None, 0, tokens, shown, cost)


def kept(tiers: Tiers, name: str, tokens: int = 10) -> Kept:
    """The segment, which must be in some tier."""
    found = tiers.find(name.encode(), tokens)
    assert found is not None
    return found


def write_out(tiers: Tiers, *names: str) -> None:
    """Has segments kept such that each pushes the one before it to disk, and every file is written."""
    for name in names:
        tiers.keep(facts(name), 1, block_id=0)
        for transfer in tiers.take_transfers():
            if isinstance(transfer, Write):
                tiers.written(transfer.slot, is_whole=True)


def kinds(transfers: tuple[Transfer, ...]) -> list[type]:
    """What kinds of transfers these are."""
    return [type(transfer) for transfer in transfers]


def test_the_host_tier_keeps_to_its_bytes_and_drops_the_cheapest() -> None:
    """What is kept never takes more than the budget; the segment that is cheapest to compute goes first."""
    tiers = Tiers(30)
    for name, cost in (("dear", 40.0), ("cheap", 10.0), ("middle", 20.0), ("new", 20.0)):
        tiers.keep(facts(name, cost=cost), 1, block_id=0)
        assert tiers.used_host_tokens <= 30
    assert tiers.find(b"cheap", 10) is None
    assert all(kept(tiers, name).is_ready for name in ("dear", "middle", "new"))
    assert kinds(tiers.take_transfers()) == [Spill, Spill, Spill, Drop, Spill]


def test_a_segment_larger_than_the_tier_is_not_kept() -> None:
    """It would push everything out and not fit all the same."""
    tiers = Tiers(30)
    tiers.keep(facts("small"), 1, block_id=0)
    tiers.keep(facts("large", tokens=31), 1, block_id=1)
    assert tiers.find(b"large", 31) is None
    assert kept(tiers, "small").is_ready


def test_what_is_worth_less_than_all_that_is_there_is_not_copied() -> None:
    """A cheap segment that would be the next to go is not even spilled."""
    tiers = Tiers(20)
    for name in ("a", "b"):
        tiers.keep(facts(name, cost=50.0), 1, block_id=0)
    tiers.take_transfers()
    tiers.keep(facts("cheap", cost=1.0), 1, block_id=0)
    assert tiers.take_transfers() == ()


def test_a_restored_segment_is_copied_out_once() -> None:
    """Its copy stays while nobody wants the room: leaving memory again costs nothing."""
    tiers = Tiers(20)
    tiers.keep(facts("a"), 1, block_id=0)
    tiers.restore(kept(tiers, "a"), block_id=1)
    tiers.keep(facts("a"), 2, block_id=1)
    assert kinds(tiers.take_transfers()) == [Spill, Restore]
    assert (tiers.counts.spilled, tiers.counts.restored) == (10, 10)


def test_the_copy_of_what_is_in_memory_goes_first() -> None:
    """Room is made by what is held twice, however dear."""
    tiers = Tiers(20)
    tiers.keep(facts("twice", cost=90.0), 5, block_id=0)
    tiers.keep(facts("here", cost=1.0), 1, block_id=1)
    tiers.restore(kept(tiers, "twice"), block_id=2)
    tiers.keep(facts("new"), 1, block_id=3)
    assert tiers.find(b"twice", 10) is None
    assert kept(tiers, "here").is_ready


def test_what_leaves_the_host_tier_is_written_and_can_be_restored_meanwhile() -> None:
    """Until its file is whole a segment on its way to disk is still had from memory; then it must be read."""
    tiers = Tiers(40, 100)
    for name in "abcd":
        tiers.keep(facts(name), 1, block_id=0)
    assert kinds(tiers.take_transfers()) == [Spill, Spill, Spill, Write, Drop, Spill]
    first = kept(tiers, "a")
    assert first.is_ready
    tiers.restore(first, block_id=7)
    assert tiers.take_transfers() == (Restore(first.slot, 7, 10),)
    tiers.written(first.slot, is_whole=True)
    assert not first.is_ready
    assert tiers.bring(first)
    assert Read(first.slot, b"a", 10) in tiers.take_transfers()


def test_host_memory_holds_what_is_on_its_way_too() -> None:
    """Writing never takes more than a quarter, and all together never more than the budget."""
    tiers = Tiers(40, 1000)
    for name in "abcdefgh":
        tiers.keep(facts(name), 1, block_id=0)
        assert tiers.used_host_tokens <= 40
    assert sum(isinstance(transfer, Write) for transfer in tiers.take_transfers()) == 1


def test_a_segment_that_has_arrived_is_ready_and_stays_on_disk() -> None:
    """Read once, it leaves the host tier later without being written again."""
    tiers = Tiers(40, 100)
    write_out(tiers, *"abcde")
    first = kept(tiers, "a")
    assert tiers.bring(first)
    assert tiers.bring(first), "asked for twice, it is read once"
    assert kinds(tiers.take_transfers()).count(Read) == 1
    assert tiers.arrived(first.slot, is_whole=True)
    assert first.is_ready
    assert tiers.counts.read == 10
    write_out(tiers, *"fgh")
    assert not first.is_ready
    assert first.on_disk


def test_a_damaged_file_is_a_miss() -> None:
    """What cannot be read is nowhere any more, its room is given back and its file deleted."""
    tiers = Tiers(40, 100)
    write_out(tiers, *"abcde")
    host, disk = tiers.used_host_tokens, tiers.used_disk_tokens
    first = kept(tiers, "a")
    tiers.bring(first)
    tiers.take_transfers()
    assert not tiers.arrived(first.slot, is_whole=False)
    assert tiers.find(b"a", 10) is None
    assert Erase(first.slot) in tiers.take_transfers()
    assert tiers.counts.unreadable == 10
    assert tiers.used_host_tokens <= host
    assert tiers.used_disk_tokens <= disk


def test_a_file_that_could_not_be_written_is_no_copy() -> None:
    """A full disk loses the segment and nothing else."""
    tiers = Tiers(40, 100)
    for name in "abcd":
        tiers.keep(facts(name), 1, block_id=0)
    first = kept(tiers, "a")
    tiers.written(first.slot, is_whole=False)
    assert tiers.find(b"a", 10) is None
    assert tiers.used_disk_tokens == 0
    assert tiers.used_host_tokens == 30


def test_a_full_disk_tier_deletes_files() -> None:
    """The disk tier keeps to its bytes as well."""
    tiers = Tiers(40, 20)
    write_out(tiers, *"abcdefg")
    assert tiers.used_disk_tokens == 20
    tiers.keep(facts("h"), 1, block_id=0)
    assert Erase in kinds(tiers.take_transfers())


def test_a_file_being_read_is_not_deleted_for_others() -> None:
    """What is brought back keeps its place on disk until it has come, though the room it takes pushes others there."""
    tiers = Tiers(40, 10)
    write_out(tiers, *"abcd")
    first = kept(tiers, "a")
    assert first.on_disk
    assert tiers.bring(first)
    assert Erase(first.slot) not in tiers.take_transfers()
    assert tiers.arrived(first.slot, is_whole=True)


def test_forgetting_reaches_every_tier_and_what_is_on_its_way() -> None:
    """In the host tier, on disk, being written or being read: an image that was forgotten is nowhere."""
    tiers = Tiers(40, 100)
    write_out(tiers, *"abcde")
    reading, on_disk, in_host = (kept(tiers, name) for name in "abe")
    tiers.bring(reading)
    tiers.keep(facts("f"), 1, block_id=0)
    writing = next(found for found in map(tiers.find, (b"c", b"d"), (10, 10)) if found and found.is_writing)
    tiers.take_transfers()
    for gone in (reading, on_disk, in_host, writing):
        tiers.forget(gone.key.decode())
        assert tiers.find(gone.key, 10) is None
    transfers = tiers.take_transfers()
    assert {Erase(reading.slot), Erase(on_disk.slot), Erase(writing.slot), Drop(in_host.slot)} <= set(transfers)
    assert not tiers.arrived(reading.slot, is_whole=True)
    tiers.written(writing.slot, is_whole=True)
    for name in "abcdef":
        tiers.forget(name)
    assert tiers.used_host_tokens == tiers.used_disk_tokens == 0
    assert tiers._num_reading == 0


def test_what_was_computed_while_it_was_read_is_taken_from_memory() -> None:
    """Somebody did not wait for the disk: the fresh copy is kept, and what arrives late is not wanted."""
    tiers = Tiers(40, 100)
    write_out(tiers, *"abcde")
    first = kept(tiers, "a")
    tiers.bring(first)
    tiers.take_transfers()
    tiers.keep(facts("a"), 2, block_id=9)
    assert first.is_ready
    assert tiers.take_transfers() == (Spill(first.slot, 9, 10),)
    assert not tiers.arrived(first.slot, is_whole=True)


def test_a_child_leaves_before_its_parent() -> None:
    """Spilled deepest first and of less use alone, the child goes first here too."""
    tiers = Tiers(20)
    tiers.keep(facts("child", cost=50.0, parent="root"), 1, block_id=0)
    tiers.keep(facts("root", cost=5.0), 1, block_id=1)
    tiers.keep(facts("other", cost=60.0), 1, block_id=2)
    assert tiers.find(b"child", 10) is None
    assert kept(tiers, "root").is_ready
