"""Stores the applied state with the writes of the acceptor, truncates the log, and compacts the history.

start:      load the stored records; verify the stored log by its chain; apply the slots after the stored state
each step:  apply the chosen slots; the next write stores the changes and the progress
snapshot:   stage the pages of a peer's state; the last page replaces the state of this replica
restore:    all rows are staged already; the founding of the cluster completes them (rule 31)
"""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from kvstore.api.membership import MembershipVersion
from kvstore.replica.applier import (
    REPLAY_CHANGES,
    REPLAY_SLOTS,
    AppliedBatch,
    Applier,
    load_restored,
    load_state,
    store_replayed,
    verified_log,
)
from kvstore.replica.retention import Retention, RetentionLimits
from kvstore.replica.snapshot_send import OutgoingSnapshots
from paxos.ready import Write
from paxos.types import Slot, Time
from storage.base import DamagedError, Recovered, StagedPage, StatePage, StateWrite, Storage, Truncation

APPLIED_RECORDS = 2000
"""Records that one step applies, about: it takes a few milliseconds, in which the driver does nothing else."""
FORGOTTEN = 500
"""Most changes that a checkpoint drops from the history; the next steps drop the rest."""
CHANGE_BYTES = 128
"""Bytes that one change takes in the history, in addition to the record that it superseded."""


class Checkpointer:
    """The owner of the applier. Only `__init__` uses the storage; afterwards the storage belongs to the driver."""

    def __init__(
        self, storage: Storage, memberships: list[MembershipVersion], limits: RetentionLimits, now: Time
    ) -> None:
        """Load the stored state, and replay the log after it. `memberships` holds the first membership of a new
        cluster, or none. Raise DamagedError when the data is damaged."""
        recovered = storage.recovered()
        self.applier = load_state(storage, memberships)
        self._retention = Retention(limits, recovered.truncation, recovered.compacted)
        self._replay(storage, recovered)
        self.applier.machine.forget(recovered.compacted)
        self._superseded_bytes = self._change_count = 0
        self._note_changes(now)
        self.outgoing = OutgoingSnapshots()
        self._compacted = recovered.compacted
        """Position up to which storage compacts, once all writes so far are durable."""
        self.truncated: Slot = recovered.truncation.slot
        """Slot up to which the log is truncated, once all writes so far are durable."""
        self.has_more = False
        """True when `apply_chosen` has left work."""
        self._entry_bytes = 0
        """Bytes of the entry that is applied in part."""
        self._stored = self.applier.applied
        self._store_now = False
        self._staged: StagedPage | None = None
        self._staged_compacted = recovered.staged_compacted
        """Position up to which the first staged page is compacted."""
        self.restored = load_restored(storage)
        """The restored state with which this replica may found a cluster, None for none. Its rows are staged. The first
        page of a peer's state replaces it."""
        self._restored_end = recovered.staged
        """Position of the last staged row of the restored state."""

    def apply_chosen(
        self, next_chosen: Callable[[], tuple[Slot, bytes] | None], now: Time
    ) -> Iterator[list[AppliedBatch]]:
        """Apply the slots from `next_chosen` in steps, and yield the command batches of each slot that is complete, see
        `Applier.advance`. Stop after APPLIED_RECORDS, because the driver has other work, such as heartbeats."""
        left, resumed = APPLIED_RECORDS, self.applier.busy
        self.has_more = True
        while left > 0:
            if not self.applier.busy:
                if self.applier.machine.history.backlog:
                    left -= self._forget_changes(left)
                chosen = next_chosen()
                if chosen is None:
                    self.has_more = False
                    return
                self.applier.begin(*chosen)
                self._entry_bytes = len(chosen[1])
            work, applied = self.applier.advance(left)
            left -= work + 1
            if applied is not None:
                self._retention.applied(self.applier.applied, self.applier.chain, self._entry_bytes)
                self._note_changes(now)
                yield applied
                self._store_now |= len(self.applier.machine.changes) > APPLIED_RECORDS
                if resumed:  # the state can be stored now, and not while the next entry is applied in part
                    return

    def _forget_changes(self, most: int) -> int:
        """Drop changes that exceed the limits of the history, at most `most`. Return their number."""
        machine = self.applier.machine
        count = min(most, machine.history.backlog)
        machine.forget(self._retention.compacted, count)
        return count

    def store_now(self) -> int:
        """Have the next step store the applied state, even when the step has nothing else to store.

        Return the position up to which storage is told to compact; the compaction itself may still be in progress.
        """
        self._store_now = True
        return self._compacted

    def retain(self, *, disk_is_full: bool) -> None:
        """Retain less of the log and of the history while the disk is full, from the next checkpoint on."""
        self._retention.limit(disk_is_full=disk_is_full)

    def stage(self, staged: StagedPage) -> None:
        """Have the next step store a page of a peer's state."""
        self._staged = staged
        if staged.after == 0:
            self._staged_compacted = staged.page.compacted
            self.restored = None

    def completion(self, restored: Applier) -> StagedPage:
        """Return the page that completes the staged rows of the restored state `restored`."""
        return StagedPage(self._restored_end, StatePage([], self._staged_compacted, restored.progress()))

    def replace(self, applier: Applier) -> None:
        """Continue from the state `applier`, all of whose pages are staged. The first one tells how far the state is
        compacted."""
        self.restored = None
        self.applier = applier
        self._stored = self.truncated = applier.applied
        self._superseded_bytes, self._change_count = applier.machine.superseded_bytes, applier.machine.change_count
        self._compacted = self._staged_compacted
        self._retention.restart(Truncation(applier.applied, applier.chain), self._staged_compacted)

    def take_checkpoint(self, now: Time, *, along: bool) -> StateWrite | None:
        """Return the part of the state to store in this step, or None.

        `along` is True when the step has another write, which then carries the state. Otherwise the applied state is
        not stored, because the log already covers it, unless a backup waits for it. A staged page is stored in any
        case, and never together with changes of this replica's own state. While an entry is applied in part, the state
        is not stored: the changes of an entry and its applied slot share a transaction (rule 6).
        """
        if self._staged is not None:
            staged, self._staged = self._staged, None
            return StateWrite(staged=staged)
        if self.applier.busy or self.applier.applied <= self._stored or not (along or self._store_now):
            return None
        self._stored = self.applier.applied
        self._store_now = False
        self.truncated = self._retention.truncation.slot
        self._retention.compact(now)
        self.applier.machine.forget(self._retention.compacted, FORGOTTEN)  # receivers read storage, not the memory
        if not self.outgoing.defer_compaction(now):
            self._compacted = self._retention.compacted
        return StateWrite(
            chosen=self._stored,
            changes=self.applier.take_changes(),
            progress=self.applier.progress(),
            truncate=self._retention.truncation,
            compact=self._compacted,
        )

    def _note_changes(self, now: Time) -> None:
        machine = self.applier.machine
        superseded_bytes, change_count = machine.superseded_bytes, machine.change_count
        if change_count > self._change_count:
            size_bytes = superseded_bytes - self._superseded_bytes + CHANGE_BYTES * (change_count - self._change_count)
            self._retention.changed(machine.position, size_bytes, now)
            self._superseded_bytes, self._change_count = superseded_bytes, change_count

    def _replay(self, storage: Storage, recovered: Recovered) -> None:
        """Apply the chosen slots after the stored state, and verify the log up to it (rule 5)."""
        applier = self.applier
        stored = applier.applied
        for (slot, _, value), chain in verified_log(storage, recovered):
            self._retention.applied(slot, chain, len(value))
            if slot > stored:
                applier.replay(slot, value)
                if slot % REPLAY_SLOTS == 0 or len(applier.machine.changes) > REPLAY_CHANGES:
                    store_replayed(storage, applier)
        if applier.applied != recovered.chosen:
            raise DamagedError(
                f"the log ends at slot {applier.applied}, but slots up to {recovered.chosen} are recorded as chosen"
            )
        if applier.applied > stored:
            store_replayed(storage, applier)


def joined(write: Write | None, checkpoint: StateWrite | None) -> Write | None:
    """Return one write that holds the records and votes of the acceptor's `write` and the state of `checkpoint`."""
    if write is None or checkpoint is None:
        return checkpoint if write is None else write
    return replace(checkpoint, promise=write.promise, accepts=write.accepts, chosen=write.chosen, votes=write.votes)
