"""The state and its storage: what rides on which write, and what a start finds."""

import pytest

from kvstore.api.commands import Command, Delete, Put
from kvstore.replica.applier import REPLAY_SLOTS, Applier, extend_chain
from kvstore.replica.checkpointer import Checkpointer, joined
from kvstore.replica.retention import RetentionLimits
from kvstore.replica.snapshot_send import IDLE_MS
from paxos.messages import Accepted, FetchSnapshot
from paxos.ready import Envelope, Write
from paxos.types import MS, NOOP, PValue, Slot
from storage.base import (
    AppliedProgress,
    Change,
    DamagedError,
    Recovered,
    StagedPage,
    StatePage,
    StateWrite,
    Truncation,
    first_of,
    revision_of,
)
from storage.memory import MemoryStorage
from tests.unit.kvstore.memberships import genesis
from tests.unit.kvstore.replica.sources import B1, VOTERS, Source, in_slot, puts

NOW = 10**12
A, B, C = puts(b"a", b"b", b"c")
NO_HISTORY = RetentionLimits(history_revisions=0)
VOTE = Envelope("n2", Accepted(B1, 9))


class StoredReplica:
    """A checkpointer, and the log that it is given; `sync` makes durable what it attached."""

    def __init__(self, storage: MemoryStorage | None = None, limits: RetentionLimits = RetentionLimits()) -> None:  # noqa: B008
        self.storage = storage or MemoryStorage("test", "n1")
        self.limits = limits
        self.checkpointer = Checkpointer(self.storage, genesis(VOTERS), limits, NOW)
        self.now = NOW

    def accept(self, *values: bytes, chosen: int | None = None) -> None:
        """The acceptor has stored these; `chosen` slots more are known to be chosen."""
        hard_state = self.storage.hard_state
        accepts = [PValue(slot, B1, value) for slot, value in enumerate(values, hard_state.last + 1)]
        chosen = hard_state.chosen + (len(values) if chosen is None else chosen)
        self.storage.write([Write(promise=B1, accepts=accepts, chosen=chosen)])

    def apply(self, *commands: Command) -> None:
        """A slot of the log for each."""
        for command in commands:
            slot = self.checkpointer.applier.applied + 1
            value = in_slot(slot, command)
            self.accept(value)
            self.apply_slot(slot, value)

    def apply_slot(self, slot: Slot, value: bytes) -> None:
        chosen = iter([(slot, value)])
        for _ in self.checkpointer.apply_chosen(lambda: next(chosen, None), self.now):
            pass

    def stored_with(self, write: Write | None = None) -> Write | None:
        return joined(write, self.checkpointer.take_checkpoint(self.now, along=write is not None))

    def sync(self) -> StateWrite:
        """A write of the protocol comes, and what goes along is stored with it."""
        write = self.stored_with(Write(votes=[VOTE]))
        assert isinstance(write, StateWrite)
        self.storage.write([write])
        return write

    def restarted(self) -> "StoredReplica":
        return StoredReplica(self.storage.reopen(), self.limits)

    @property
    def progress(self) -> AppliedProgress:
        return self.storage.hard_state.progress


# What goes along with writes


def test_rule_6_what_was_applied_and_how_far_goes_along_with_the_next_write_as_one() -> None:
    replica = StoredReplica()
    replica.apply(A, B)
    assert replica.stored_with() is None
    pvalue = PValue(3, B1, NOOP)
    write = replica.stored_with(Write(promise=B1, accepts=[pvalue], chosen=2, votes=[VOTE]))
    assert write == StateWrite(
        promise=B1,
        accepts=[pvalue],
        chosen=2,
        votes=[VOTE],
        changes=[Change(first_of(1), b"a", b"0", 1, 1, 0), Change(first_of(2), b"b", b"1", 2, 1, 0)],
        progress=replica.checkpointer.applier.progress(),
        truncate=Truncation(),
        compact=0,
    )
    assert replica.stored_with(Write(votes=[VOTE])) == Write(votes=[VOTE])


def test_rule_6_a_slot_that_changes_no_record_is_progress_too() -> None:
    replica = StoredReplica()
    replica.accept(NOOP)
    replica.apply_slot(1, NOOP)
    write = replica.sync()
    assert (write.changes, write.progress) == ([], replica.checkpointer.applier.progress())


def test_whoever_wants_to_read_the_state_has_it_stored_though_there_is_no_write() -> None:
    replica = StoredReplica()
    replica.checkpointer.store_now()
    assert replica.stored_with() is None
    replica.apply(A)
    write = replica.stored_with()
    assert isinstance(write, StateWrite)
    assert (write.chosen, len(write.changes)) == (1, 1)
    replica.storage.write([write])
    replica.apply(B)
    assert replica.stored_with() is None


def test_rule_25_the_log_is_cut_only_up_to_what_is_stored_with_the_cut() -> None:
    replica = StoredReplica(limits=RetentionLimits(log_slots=1))
    for number, command in enumerate([A, B, C], 1):
        replica.apply(command)
        before = replica.checkpointer.truncated
        replica.stored_with()
        assert replica.checkpointer.truncated == before
        write = replica.sync()
        assert write.progress is not None
        assert write.progress.applied == number
        assert write.truncate == Truncation(number - 1, write.truncate.chain if write.truncate else b"")
        assert replica.checkpointer.truncated == number - 1
    assert [pvalue.slot for pvalue in replica.storage._log.values()] == [3]


def test_what_is_superseded_is_compacted_beyond_the_limits() -> None:
    replica = StoredReplica(limits=NO_HISTORY)
    replica.apply(A, B)
    assert replica.sync().compact == first_of(2)
    replica.apply(Put(b"a", b"2"))
    assert replica.sync().compact == first_of(3)
    replica.apply(C)
    assert replica.sync().compact == first_of(4)
    replica.apply(Delete(b"c"))
    assert replica.sync().compact == first_of(5)
    assert [revision_of(change.position) for change in replica.storage.read_state(0, 1000).changes] == [2, 3]


def test_rule_26_compaction_waits_while_somebody_fetches_and_goes_on_then() -> None:
    replica = StoredReplica(limits=NO_HISTORY)
    replica.checkpointer.outgoing.requested("n2", FetchSnapshot(0), NOW)
    replica.apply(A, Delete(b"a"))
    assert replica.sync().compact == first_of(0)
    assert replica.checkpointer.store_now() == first_of(0)
    replica.now += IDLE_MS * MS
    replica.apply(B)
    assert replica.sync().compact == first_of(3)
    assert replica.checkpointer.store_now() == first_of(3)


def test_rule_26_what_memory_holds_of_the_past_waits_for_nobody() -> None:
    replica = StoredReplica(limits=NO_HISTORY)
    replica.checkpointer.outgoing.requested("n2", FetchSnapshot(0), NOW)
    replica.apply(A, Put(b"a", b"2"))
    assert replica.sync().compact == 0
    assert list(replica.checkpointer.applier.machine.history.after(0)) == []


# A start


def test_rule_6_a_start_loads_the_state_and_applies_only_what_comes_behind_it() -> None:
    replica = StoredReplica()
    replica.apply(A, B)
    replica.sync()
    replica.apply(C, Delete(b"a"))
    storage = replica.storage.reopen()
    storage._log[1] = PValue(1, B1, in_slot(1, A))  # the same, but nobody applies it a second time
    applied: list[Slot] = []
    replay = Applier.replay

    def counted(applier: Applier, slot: Slot, value: bytes) -> None:
        applied.append(slot)
        replay(applier, slot, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Applier, "replay", counted)
        again = StoredReplica(storage)
    assert applied == [3, 4]
    assert again.checkpointer.applier.progress() == replica.checkpointer.applier.progress()
    assert again.checkpointer.applier.machine.records == replica.checkpointer.applier.machine.records


def test_what_a_start_applied_is_stored_at_once_and_need_not_be_applied_again() -> None:
    replica = StoredReplica()
    replica.apply(A, B)
    again = replica.restarted()
    assert again.progress == again.checkpointer.applier.progress()
    assert [change.key for change in again.storage.read_state(0, 1000).changes] == [b"a", b"b"]
    assert again.stored_with(Write(votes=[VOTE])) == Write(votes=[VOTE])
    again.apply(C)
    assert [change.key for change in again.sync().changes] == [b"c"]


def test_a_long_log_is_stored_in_pieces_while_it_is_applied() -> None:
    replica = StoredReplica()
    replica.accept(*[in_slot(slot, Put(b"%d" % slot, b"")) for slot in range(1, REPLAY_SLOTS + 3)])
    sizes: list[int] = []

    class CountingStorage(MemoryStorage):
        def write(self, writes: list[Write]) -> None:  # type: ignore[override]
            sizes.extend(len(write.changes) for write in writes if isinstance(write, StateWrite))
            super().write(writes)

    storage = replica.storage.reopen()
    storage.__class__ = CountingStorage
    again = StoredReplica(storage)
    assert sizes == [REPLAY_SLOTS, 2]
    assert again.progress.applied == REPLAY_SLOTS + 2


def test_what_is_accepted_and_not_known_to_be_chosen_is_not_applied() -> None:
    replica = StoredReplica()
    replica.accept(in_slot(1, A), in_slot(2, B), chosen=1)
    assert replica.restarted().checkpointer.applier.applied == 1


def test_a_start_goes_on_with_cut_and_compaction_where_they_were() -> None:
    replica = StoredReplica(limits=RetentionLimits(log_slots=2, history_revisions=0))
    replica.apply(A, Put(b"a", b"2"), B, C)
    replica.sync()
    again = replica.restarted()
    assert (again.checkpointer.truncated, again.checkpointer.store_now()) == (2, first_of(4))
    again.apply(Put(b"d", b""))
    write = again.sync()
    assert (write.truncate, write.compact) == (
        Truncation(3, write.truncate.chain if write.truncate else b""),
        first_of(5),
    )


def replaced(storage: MemoryStorage, slot: Slot, value: bytes) -> MemoryStorage:
    """The log has another value in `slot`, sound as a row."""
    storage._log[slot] = PValue(slot, B1, value)
    return storage


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_rule_5_a_log_that_is_not_the_one_that_was_applied_is_damage(slot: Slot) -> None:
    replica = StoredReplica()
    replica.apply(A, B, C)
    replica.sync()
    replica.apply(Put(b"d", b""))
    assert replica.restarted().checkpointer.applier.applied == 4
    with pytest.raises(DamagedError, match="up to slot 3 is not the one that was applied"):
        StoredReplica(replaced(replica.storage.reopen(), slot, in_slot(slot, Put(b"x", b""))))


def test_rule_5_the_log_behind_the_cut_is_compared_from_the_chain_of_the_cut_on() -> None:
    replica = StoredReplica(limits=RetentionLimits(log_slots=2))
    replica.apply(A, B, C)
    replica.sync()
    assert replica.checkpointer.truncated == 1
    assert replica.restarted().checkpointer.applier.applied == 3
    for damaged in (
        replaced(replica.storage.reopen(), 2, in_slot(2, C)),
        replaced(replica.storage.reopen(), 3, in_slot(3, A)),
    ):
        with pytest.raises(DamagedError, match="not the one that was applied"):
            StoredReplica(damaged)
    storage = replica.storage.reopen()
    recovered = storage.recovered()
    recovered.truncation = Truncation(1, extend_chain(recovered.truncation.chain, 1, b"other"))
    with pytest.raises(DamagedError, match="not the one that was applied"):
        StoredReplica(storage)


def test_rule_5_a_log_that_was_cut_to_its_end_has_the_chain_of_the_state() -> None:
    replica = StoredReplica(limits=RetentionLimits(log_slots=0))
    replica.apply(A, B)
    replica.sync()
    assert replica.restarted().checkpointer.applier.applied == 2
    storage = replica.storage.reopen()
    storage.recovered().truncation = Truncation(2, bytes(16))
    with pytest.raises(DamagedError, match="up to slot 2 is not the one that was applied"):
        StoredReplica(storage)


class Shortened(MemoryStorage):
    """Storage that says that more is chosen than it has."""

    def recovered(self) -> Recovered:
        recovered = super().recovered()
        recovered.chosen = 3
        return recovered


def test_rule_5_a_log_that_ends_before_what_is_known_to_be_chosen_is_damage() -> None:
    with pytest.raises(DamagedError, match="ends at slot 0, but slots up to 3"):
        StoredReplica(Shortened("test", "n1"))


# The state of a peer


def installed(replica: StoredReplica, *pages: StagedPage, source: Source) -> None:
    """The pages come one by one; with the last one the state is that of `source`."""
    for page in pages:
        replica.checkpointer.stage(page)
        if page.page.progress is not None:
            replica.checkpointer.replace(source.applier)
        write = replica.stored_with()
        assert isinstance(write, StateWrite)
        assert write.staged == page
        replica.storage.write([write])


def page(source: Source, after: int, max_bytes: int = 1 << 20) -> StagedPage:
    """What lies behind revision `after`."""
    return StagedPage(first_of(after), source.storage.read_state(first_of(after), max_bytes))


def test_rule_25_a_page_goes_alone_and_what_was_applied_waits_for_the_next_write() -> None:
    replica = StoredReplica()
    replica.apply(A)
    staged = page(Source(*puts(b"x", b"y", b"z")), 0, 2)
    replica.checkpointer.stage(staged)
    assert replica.stored_with(Write(promise=B1)) == StateWrite(promise=B1, staged=staged)
    write = replica.stored_with(Write(votes=[VOTE]))
    assert isinstance(write, StateWrite)
    assert (write.staged, len(write.changes)) == (None, 1)


def test_rule_25_with_the_last_page_the_state_is_the_other_one_in_one_transaction() -> None:
    source = Source(*puts(b"x", b"y", b"z"), Put(b"x", b"2"))
    replica = StoredReplica()
    replica.apply(A)
    installed(replica, page(source, 0, 4), page(source, 2), source=source)
    assert replica.checkpointer.applier is source.applier
    assert (replica.checkpointer.truncated, replica.progress) == (4, source.applier.progress())
    hard_state = replica.storage.hard_state
    assert (hard_state.chosen, hard_state.truncation) == (4, Truncation(4, source.applier.chain))
    assert replica.stored_with(Write(votes=[VOTE])) == Write(votes=[VOTE])
    assert replica.restarted().checkpointer.applier.progress() == source.applier.progress()


def test_after_it_the_log_and_the_state_go_on_behind_it() -> None:
    source = Source(*puts(b"x", b"y", b"z"))
    replica = StoredReplica(limits=RetentionLimits(log_slots=1, history_revisions=0))
    installed(replica, page(source, 0), source=source)
    replica.apply(Put(b"x", b"2"), Delete(b"y"))
    write = replica.sync()
    assert [revision_of(change.position) for change in write.changes] == [4, 5]
    assert (write.compact, replica.checkpointer.truncated) == (first_of(5), 4)
    again = replica.restarted()
    assert again.checkpointer.applier.progress() == source.applier.progress()


@pytest.mark.parametrize("restart", [False, True])
def test_rule_25_compaction_goes_on_from_what_the_first_page_left_out(restart: bool) -> None:
    """The last page is of a source that has compacted less: storage would refuse to go back to that, and the process
    would end."""
    commands = [*puts(b"x", b"y"), Put(b"x", b"2"), Delete(b"x"), *puts(b"z", b"w")]
    first, last = Source(*commands), Source(*commands)
    first.compact(4)
    last.compact(1)
    replica = StoredReplica()
    replica.checkpointer.stage(page(first, 0, 4))
    write = replica.stored_with()
    assert write is not None
    replica.storage.write([write])
    if restart:
        replica = replica.restarted()
    assert replica.storage.hard_state.staging.position == first_of(5)
    installed(replica, page(last, 5), source=last)
    assert replica.storage.hard_state.compact == first_of(4)
    replica.apply(A)
    assert replica.sync().compact == first_of(4)


def test_an_empty_state_takes_the_place_of_an_older_one() -> None:
    source = Source()
    source.applier.applied = 9
    replica = StoredReplica()
    replica.apply(A)
    replica.sync()
    progress = source.applier.progress()
    installed(replica, StagedPage(0, StatePage([], 0, progress)), source=source)
    assert replica.progress == progress
    assert replica.storage.read_state(0, 1000).changes == []
