"""What every Storage owes to a replica beside the log: its state, what is no longer needed, and a peer's state."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from paxos.ready import Write
from paxos.types import Ballot, GrantTerms, PValue
from storage import hard_state
from storage.base import (
    GENESIS,
    AppliedProgress,
    Change,
    SeenStart,
    StagedPage,
    StatePage,
    StateWrite,
    Storage,
    StorageError,
    Truncation,
)
from storage.memory import MemoryStorage
from storage.sqlite import open_storage
from tests.unit.storage.numbered_writes import MEMBERS
from tests.unit.storage.states import EVERYTHING, WriteMaker, entry, pages, rows, shown, staging, tidied, transactions

Reopen = Callable[[], Storage]


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    opened: list[Storage] = []

    def again() -> Storage:
        last = opened[-1] if opened else None
        if last is not None:
            last.close()
        if request.param == "sqlite":
            opened.append(open_storage(tmp_path / "data", "test", "n1", MEMBERS))
        else:
            opened.append(last.reopen() if isinstance(last, MemoryStorage) else MemoryStorage("test", "n1"))
        return opened[-1]

    yield again
    if opened:
        opened[-1].close()


def filled() -> tuple[WriteMaker, list[Write]]:
    """Revisions 1 to 6 in slots 1 to 3: a, b, a again, b deleted, c and a once more."""
    machine = WriteMaker()
    first = machine.write(machine.put(b"a", b"1"), machine.put(b"b", b"2"))
    second = machine.write(machine.put(b"a", b"3"), machine.delete(b"b"))
    third = machine.write(machine.put(b"c", b""), machine.put(b"a", b"6"))
    return machine, [first, second, third]


def test_a_new_storage_has_no_state(reopen: Reopen) -> None:
    storage = reopen()
    recovered = storage.recovered()
    assert (recovered.truncation, recovered.progress) == (Truncation(0, GENESIS), AppliedProgress())
    assert (recovered.compacted, recovered.log_bytes, recovered.staged) == (0, 0, 0)
    assert storage.read_state(0, 1000) == StatePage([], 0, AppliedProgress())
    assert storage.read_state(0, 1000, staged=True) == StatePage([], 0, None)
    assert not storage.maintain()


def test_changes_and_progress_are_there_after_the_next_opening(reopen: Reopen) -> None:
    machine, writes = filled()
    reopen().write(writes)
    storage = reopen()
    assert storage.recovered().progress == machine.progress()
    assert storage.recovered().log_bytes == 24
    assert storage.read_state(0, 1000) == StatePage(
        [
            Change(1, b"a", b"1", 1, 1, 0),
            Change(2, b"b", b"2", 2, 1, 0),
            Change(3, b"a", b"3", 1, 2, 1),
            Change(4, b"b", None, 0, 0, 2),
            Change(5, b"c", b"", 5, 1, 0),
            Change(6, b"a", b"6", 1, 3, 3),
        ],
        0,
        machine.progress(),
    )


@pytest.mark.parametrize("digest", [0, 2**63, 2**64 - 1, 2**200])
def test_a_digest_may_be_any_number(reopen: Reopen, digest: int) -> None:
    reopen().write(
        [StateWrite(accepts=[entry(1)], chosen=1, progress=AppliedProgress(1, 0, bytes(16), digest, b"\0'x"))]
    )
    assert reopen().recovered().progress == AppliedProgress(1, 0, bytes(16), digest, b"\0'x")


def test_a_state_is_read_page_by_page_at_least_a_row_at_a_time(reopen: Reopen) -> None:
    machine, writes = filled()
    storage = reopen()
    storage.write(writes)
    everything = rows(storage)
    assert rows(storage, 4) == rows(storage, 0) == everything
    assert storage.read_state(0, 4) == StatePage(everything[:2], 0, None)
    assert storage.read_state(2, 3) == StatePage(everything[2:4], 0, None)
    assert storage.read_state(4, 3) == StatePage(everything[4:], 0, machine.progress())
    assert storage.read_state(6, 3) == StatePage([], 0, machine.progress())


@pytest.mark.parametrize("count", [1, 3, 4, 5, 63, 64, 65, 256, 257, 700])
def test_any_number_of_changes_is_stored_in_order(reopen: Reopen, count: int) -> None:
    machine = WriteMaker()
    write = machine.write(*[machine.put(b"%d" % (number % 7), b"x" * (number % 50)) for number in range(count)])
    reopen().write([write])
    assert rows(reopen()) == write.changes


def test_a_cut_log_begins_behind_the_cut(reopen: Reopen) -> None:
    machine, writes = filled()
    storage = reopen()
    storage.write([*writes, Write(accepts=[entry(5)]), StateWrite(truncate=machine.truncation(2))])
    for _ in range(2):
        assert [storage.read(slot, 9, 1000) for slot in (0, 1, 2)] == [[], [], []]
        assert storage.read(3, 9, 1000) == [entry(3), entry(5)]
        storage = tidied(reopen())
    recovered = storage.recovered()
    assert (recovered.truncation, recovered.last, recovered.log_bytes) == (machine.truncation(2), 5, 16)


def test_a_log_that_is_cut_at_its_end_goes_on_there(reopen: Reopen) -> None:
    machine, writes = filled()
    reopen().write([*writes, StateWrite(truncate=machine.truncation(3))])
    storage = tidied(reopen())
    assert (storage.recovered().chosen, storage.recovered().last, storage.recovered().log_bytes) == (3, 3, 0)
    storage.write([machine.write()])
    assert reopen().read(4, 9, 1000) == [entry(4)]


def test_an_accept_of_a_slot_that_is_cut_is_dropped(reopen: Reopen) -> None:
    machine, writes = filled()
    storage = reopen()
    storage.write([*writes, StateWrite(truncate=machine.truncation(2))])
    tidied(storage)
    late = [entry(slot, ballot=Ballot(9, "n3")) for slot in (1, 2, 3)]
    storage.write([Write(accepts=late)])
    storage = reopen()
    assert storage.recovered().log_bytes == 8
    assert storage.read(1, 9, 1000) == []
    assert storage.read(3, 9, 1000) == late[2:]


def test_what_is_compacted_leaves_what_was_alive_then_and_all_that_came_later(reopen: Reopen) -> None:
    machine, writes = filled()
    storage = reopen()
    storage.write(writes)
    everything = rows(storage)
    for compact, left in [(1, {1, 2, 3, 4, 5, 6}), (3, {2, 3, 4, 5, 6}), (4, {3, 4, 5, 6} - {4}), (6, {5, 6})]:
        storage.write([StateWrite(compact=compact)])
        storage = tidied(storage)
        found = storage.read_state(0, 1000)
        assert found == StatePage([row for row in everything if row.position in left], compact, machine.progress())
        storage = reopen()
        assert storage.recovered().compacted == compact


def test_a_compacted_state_goes_on(reopen: Reopen) -> None:
    machine = WriteMaker()
    storage = reopen()
    storage.write([machine.write(machine.put(b"a"), machine.delete(b"a")), StateWrite(compact=2)])
    assert rows(tidied(storage)) == []
    storage = reopen()
    assert storage.read_state(0, 1000) == StatePage([], 2, machine.progress())
    storage.write([machine.write(machine.put(b"a"))])
    assert rows(reopen()) == [Change(3, b"a", b"value", 3, 1, 0)]


def peer_ahead() -> tuple[WriteMaker, MemoryStorage]:
    """Ten slots with a row each, compacted up to position 4."""
    machine, peer = WriteMaker(), MemoryStorage("test", "n2")
    for number in range(10):
        peer.write([machine.write(machine.put(b"key %d" % (number % 3)))])
    peer.write([StateWrite(compact=4)])
    return machine, peer


@pytest.mark.parametrize("restart", [False, True])
def test_a_staged_state_takes_the_place_of_the_own_one(reopen: Reopen, restart: bool) -> None:
    """Rule 25: it lowers no promise, and drops no accepted slot above it."""
    storage = reopen()
    storage.write([*filled()[1], Write(promise=Ballot(7, "n1"), accepts=[entry(4), entry(11), entry(13)])])
    storage = reopen()
    before = shown(storage)
    machine, peer = peer_ahead()
    for writes in list(staging(peer))[:-1]:
        storage = reopen() if restart else storage
        storage.write(writes)
    storage = reopen()
    assert {**shown(storage), "staged": before["staged"]} == before
    staged = storage.recovered().staged
    assert rows(storage, staged=True) == [row for row in rows(peer) if row.position <= staged]
    storage.write([StateWrite(staged=StagedPage(staged, peer.read_state(staged, EVERYTHING)))])
    storage = tidied(reopen())
    recovered = storage.recovered()
    assert (recovered.promised, recovered.chosen, recovered.last) == (Ballot(7, "n1"), 10, 13)
    assert (recovered.truncation, recovered.progress) == (machine.truncation(10), machine.progress())
    assert (recovered.compacted, recovered.staged, recovered.log_bytes) == (4, 0, 16)
    assert storage.read_state(0, EVERYTHING) == peer.read_state(0, EVERYTHING)
    assert storage.read_state(0, 1000, staged=True) == StatePage([], 0, None)
    assert storage.read(11, 99, 1000) == [entry(11), entry(13)]


def test_an_installed_state_goes_on_and_may_be_replaced_again(reopen: Reopen) -> None:
    storage = reopen()
    machine, peer = peer_ahead()
    for _ in range(3):
        storage.write([write for page in staging(peer, max_bytes=EVERYTHING) for write in page])
        assert storage.read_state(0, EVERYTHING) == peer.read_state(0, EVERYTHING)
    change = machine.put(b"key 1")
    storage.write([machine.write(change), StateWrite(compact=11, truncate=machine.truncation(11))])
    assert [row.position for row in rows(tidied(reopen()))] == [9, 10, 11]


RESTORED = AppliedProgress(9, 8, b"\x01" * 16, 2**64 - 1, b"extra")
RESTORED_ROWS = [Change(3, b"a", b"1", 1, 1, 0), Change(8, b"b", b"", 1, 1, 0)]


def restored(reopen: Reopen) -> Storage:
    """Stage a restored state, and open the storage again."""
    storage = reopen()
    storage.write([StateWrite(staged=StagedPage(0, StatePage(RESTORED_ROWS[:1], 8, None)))])
    storage.write([StateWrite(staged=StagedPage(3, StatePage(RESTORED_ROWS[1:], 8, None)), restored=RESTORED)])
    return reopen()


def test_rule_31_a_restored_state_is_staged_until_its_last_page_comes(reopen: Reopen) -> None:
    storage = restored(reopen)
    recovered = storage.recovered()
    assert (recovered.restored, recovered.progress, recovered.chosen) == (RESTORED, AppliedProgress(), 0)
    assert (rows(storage), rows(storage, staged=True)) == ([], RESTORED_ROWS)
    storage.write([StateWrite(staged=StagedPage(8, StatePage([], 8, RESTORED)))])
    storage = reopen()
    recovered = storage.recovered()
    assert (recovered.restored, recovered.progress, recovered.chosen) == (None, RESTORED, 9)
    assert (rows(storage), recovered.truncation) == (RESTORED_ROWS, Truncation(9, b"\x01" * 16))


def test_rule_17_the_longest_lease_that_may_be_granted_is_stored(reopen: Reopen) -> None:
    storage = reopen()
    assert storage.recovered().granted == GrantTerms()
    for terms in (GrantTerms(10_000, 100), GrantTerms(500, 300_000)):
        storage.write([StateWrite(granted=terms)])
        storage = reopen()
        assert storage.recovered().granted == terms


def test_rule_28_the_newest_start_on_the_data_of_each_peer_is_stored(
    reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hard_state, "MOST_SEEN", 3)
    starts = [SeenStart(2**61 + peer, boot, 2**62 - 1) for boot in (1, 5) for peer in range(2)]
    storage = reopen()
    assert storage.recovered().seen == ()
    storage.write([StateWrite(seen=start) for start in starts[:3]])
    storage = reopen()
    assert storage.recovered().seen == (starts[1], starts[2])
    storage.write([StateWrite(seen=starts[3])])
    storage.write([StateWrite(seen=SeenStart(7, 1, 7))])
    storage.write([StateWrite(seen=SeenStart(8, 1, 8))])
    assert reopen().recovered().seen == (starts[3], SeenStart(7, 1, 7), SeenStart(8, 1, 8))


@pytest.mark.parametrize("progress", [None, AppliedProgress(2, 1)])
def test_the_first_page_of_a_peer_takes_the_place_of_a_restored_state(
    reopen: Reopen, progress: AppliedProgress | None
) -> None:
    storage = restored(reopen)
    row = Change(1, b"c", b"", 1, 1, 0)
    storage.write([StateWrite(staged=StagedPage(0, StatePage([row], 0, progress)))])
    storage = reopen()
    assert storage.recovered().restored is None
    assert rows(storage, staged=progress is None) == [row]


def test_staging_begins_anew_and_drops_what_was_staged(reopen: Reopen) -> None:
    _, peer = peer_ahead()
    storage = reopen()
    storage.write([StateWrite(staged=StagedPage(0, peer.read_state(0, EVERYTHING)._replace(progress=None)))])
    _, first = next(pages(peer, 0))
    storage.write([StateWrite(staged=StagedPage(0, first))])
    storage = reopen()
    assert storage.recovered().staged == first.changes[-1].position
    assert rows(storage, staged=True) == first.changes
    assert rows(tidied(storage), staged=True) == first.changes


def test_an_empty_state_can_be_installed(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([Write(accepts=[entry(1)])])
    storage.write([StateWrite(staged=StagedPage(0, StatePage([], 0, AppliedProgress(3))))])
    assert reopen().recovered().progress == AppliedProgress(3)


def test_pages_of_a_source_that_compacted_less_leave_nothing_behind(reopen: Reopen) -> None:
    """The rows behind position 3 come from a peer that compacted nothing: row 4 is superseded by row 5 there."""
    machine = WriteMaker()
    writes = [machine.write(machine.put(b"key %d" % key)) for key in (1, 1, 2, 3, 3, 1)]
    one, other = MemoryStorage("test", "n2"), MemoryStorage("test", "n3")
    one.write([*writes, StateWrite(compact=5)])
    other.write(writes)
    storage = reopen()
    storage.write([StateWrite(staged=StagedPage(0, StatePage(rows(other)[1:3], 5, None)))])
    storage.write([StateWrite(staged=StagedPage(3, other.read_state(3, EVERYTHING)))])
    assert tidied(reopen()).read_state(0, EVERYTHING) == one.read_state(0, EVERYTHING)


def test_a_page_that_lacks_deletions_of_what_another_source_gave_is_refused(reopen: Reopen) -> None:
    """The first source and the third dropped the deletion of position 6; the second still had what it deleted."""
    storage = reopen()
    for after, position, compact in ((0, 3, 9), (3, 4, 1)):
        page = StatePage([Change(position, b"key %d" % position, b"", position, 1, 0)], compact, None)
        storage.write([StateWrite(staged=StagedPage(after, page))])
    assert storage.read_state(0, 1000, staged=True).compacted == 1
    with pytest.raises(StorageError, match="page after position 4 is compacted up to 9"):
        storage.write([StateWrite(staged=StagedPage(4, StatePage([], 9, AppliedProgress(1, 9))))])


BAD = {
    "changes up to position 7 come without progress": StateWrite(changes=[Change(7, b"d", b"", 7, 1, 0)]),
    "has position 8, which does not follow 6": StateWrite(
        changes=[Change(8, b"d", b"", 8, 1, 0)], progress=AppliedProgress(3, 8)
    ),
    "end at position 6, but the progress has position 7": StateWrite(progress=AppliedProgress(3, 7)),
    "end at position 6, but the progress has position 5": StateWrite(progress=AppliedProgress(3, 5)),
    "applied slot would go down from 3 to 2": StateWrite(progress=AppliedProgress(2, 6)),
    "applied slot 4 would exceed the chosen prefix, 3": StateWrite(accepts=[entry(4)], progress=AppliedProgress(4, 6)),
    "truncation point would go down from slot 2 to 1": StateWrite(truncate=Truncation(1)),
    "truncation point 4 would exceed the applied slot 3": StateWrite(
        accepts=[entry(4)], chosen=4, truncate=Truncation(4)
    ),
    "compacted position would go down from 2 to 1": StateWrite(compact=1),
    "compacted position 7 would exceed the stored one, 6": StateWrite(compact=7),
    "page begins after position 2, but the staged snapshot ends at 1": StateWrite(
        staged=StagedPage(2, StatePage([], 0, None))
    ),
    "position 3 after position 1": StateWrite(
        staged=StagedPage(1, StatePage([Change(3, b"c", b"", 3, 1, 0)], 0, None))
    ),
    "position 1 after position 1": StateWrite(
        staged=StagedPage(1, StatePage([Change(1, b"c", b"", 1, 1, 0)], 0, None))
    ),
    "restored state has position 5, but its staged pages end at 1": StateWrite(restored=AppliedProgress(9, 5)),
    "page after position 1 is compacted up to 5": StateWrite(staged=StagedPage(1, StatePage([], 5, None))),
    "ends at position 1, but its progress has position 9": StateWrite(
        staged=StagedPage(1, StatePage([], 0, AppliedProgress(9, 9)))
    ),
    "applied slot would go down from 3 to 1": StateWrite(staged=StagedPage(1, StatePage([], 0, AppliedProgress(1, 1)))),
    "staged page and changes of the own state": StateWrite(
        staged=StagedPage(0, StatePage([], 0, None)), progress=AppliedProgress(3, 6)
    ),
}


@pytest.mark.parametrize("says", BAD)
def test_a_write_that_breaks_the_contract_is_refused_whole(reopen: Reopen, says: str) -> None:
    """Rules 6 and 25."""
    machine, writes = filled()
    page = StatePage([Change(1, b"a", b"", 1, 1, 0)], 0, None)
    reopen().write(
        [*writes, StateWrite(truncate=machine.truncation(2), compact=2), StateWrite(staged=StagedPage(0, page))]
    )
    before = shown(reopen())
    storage = reopen()
    with pytest.raises(StorageError, match=says):
        storage.write([Write(promise=Ballot(9, "n9"), accepts=[entry(9)]), BAD[says]])
    storage.close()
    assert shown(reopen()) == before


def test_plain_writes_leave_the_state_as_it_is(reopen: Reopen) -> None:
    machine, writes = filled()
    storage = reopen()
    storage.write(writes)
    storage.write([Write(accepts=[PValue(4, Ballot(1, "n1"), b"x")], chosen=4), StateWrite(promise=Ballot(1, "n1"))])
    assert reopen().recovered().progress == machine.progress()


def test_state_writes_without_records_store_nothing(reopen: Reopen) -> None:
    storage = reopen()
    storage.write([StateWrite()])
    assert storage.read_state(0, 1000) == StatePage([], 0, AppliedProgress())


def test_a_long_life_is_the_same_in_every_storage(reopen: Reopen) -> None:
    """Applying, cutting, compacting, staging and installing, with restarts and whatever tidying did by then."""
    model, storage = MemoryStorage("test", "n1"), reopen()
    for number, writes in enumerate(islice(transactions(), 150)):
        model.write(writes)
        storage.write(writes)
        if number % 3 == 0:
            storage.maintain()
        if number % 5 == 0:
            storage = reopen()
            assert shown(storage) == shown(model.reopen())
