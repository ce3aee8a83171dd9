"""The state of this replica and its storage: what is applied goes along with the next write, what is old goes.

load:    rows of the state -> machine;  log behind it -> chain compared, the rest applied
then:    chosen -> applied -> changes and progress ride on the write of the next step
or:      the state of a peer, page by page, and in the end instead of the own one
"""

from typing import Any

from kvstore.api.commands import CommandBatch, Result
from kvstore.api.membership import MembershipVersion
from kvstore.replica.applier import SLOTS_A_WRITE, Applier, load_state, store_replayed, verified_log
from kvstore.replica.retention import Limits, Retention
from kvstore.replica.snapshot_send import OutgoingSnapshots
from paxos.ready import Ready, Write
from paxos.types import Slot, Time
from storage.base import DamagedError, Recovered, StagedPage, StateWrite, Storage, Truncation

EVENT_BYTES = 128
"""What remembering a change takes, beside the record that it superseded, as far as the limits are concerned."""


class Checkpointer:
    """Owns the applier. Storage belongs to it while it is made, and to the driver afterwards."""

    def __init__(self, storage: Storage, memberships: list[MembershipVersion], limits: Limits, now: Time) -> None:
        """Load what is stored; `memberships` are the members of a cluster that has stored nothing yet. Raises
        DamagedError when it is not what was stored."""
        recovered = storage.recovered()
        self.applier = load_state(storage, memberships)
        self._retention = Retention(limits, recovered.truncation, recovered.compacted)
        self._replay(storage, recovered)
        self.applier.machine.forget(recovered.compacted)
        self._superseded_bytes = self._events = 0
        self._note_past(now)
        self.outgoing = OutgoingSnapshots()
        self._compacted = recovered.compacted
        """What is superseded up to this position is no longer needed on the disk."""
        self.cut: Slot = recovered.truncation.slot
        """The log is cut up to here, once all writes up to now are durable."""
        self._stored = self.applier.applied
        self._store_now = False
        self._staged: StagedPage | None = None
        self._left_out = recovered.staged_compacted

    def apply(self, slot: Slot, value: bytes, now: Time) -> list[tuple[CommandBatch, list[Result] | None]]:
        """Apply the next slot; see `Applier.apply`."""
        applied = list(self.applier.apply(slot, value))
        self._retention.applied(slot, self.applier.chain, len(value))
        self._note_past(now)
        return applied

    def store_now(self) -> int:
        """Have what is applied stored with the next step, even alone. Gives the revision up to which the stored state
        is compacted, or will be as soon as storage has the time."""
        self._store_now = True
        return self._compacted

    def stage(self, staged: StagedPage) -> None:
        """Have a page of a peer's state stored with the next write."""
        self._staged = staged
        if staged.after == 0:
            self._left_out = staged.page.compacted

    def replace(self, applier: Applier, staged: StagedPage) -> None:
        """Go on from `applier`, whose last page is `staged`. It is compacted as far as its first page was."""
        self.stage(staged)
        self.applier = applier
        self._stored = self.cut = applier.applied
        self._superseded_bytes, self._events = applier.machine.superseded_bytes, applier.machine.change_count
        self._compacted = self._left_out
        self._retention.jumped(Truncation(applier.applied, applier.chain), self._left_out)

    def attach(self, ready: Ready, now: Time) -> None:
        """Put what is to be stored of the state on the write of this step. What was applied is not worth a write of its
        own, the log has it, unless somebody wants to read it. A staged page is, and goes alone."""
        if self._staged is not None:
            ready.write = _with_state(ready.write or Write(), staged=self._staged)
            self._staged = None
        elif self.applier.applied > self._stored and (self._store_now or ready.write is not None):
            self._stored = self.applier.applied
            self._store_now = False
            self.cut = self._retention.cut.slot
            self._retention.compact(now)
            self.applier.machine.forget(self._retention.compacted)  # memory waits for nobody
            if not self.outgoing.hold(now):
                self._compacted = self._retention.compacted
            ready.write = _with_state(
                ready.write or Write(chosen=self._stored),
                changes=self.applier.take_changes(),
                progress=self.applier.progress(),
                truncate=self._retention.cut,
                compact=self._compacted,
            )

    def _note_past(self, now: Time) -> None:
        """What was changed is kept for a while, on the disk and in memory."""
        machine = self.applier.machine
        superseded_bytes, events = machine.superseded_bytes, machine.change_count
        if events > self._events:
            size_bytes = superseded_bytes - self._superseded_bytes + EVENT_BYTES * (events - self._events)
            self._retention.changed(machine.position, size_bytes, now)
            self._superseded_bytes, self._events = superseded_bytes, events

    def _replay(self, storage: Storage, recovered: Recovered) -> None:
        """Apply what is chosen beyond the stored state, and verify the log that led to that state (rule 5)."""
        applier = self.applier
        stored = applier.applied
        for (slot, _, value), chain in verified_log(storage, recovered):
            self._retention.applied(slot, chain, len(value))
            if slot > stored:
                applier.replay(slot, value)
                if slot % SLOTS_A_WRITE == 0:
                    store_replayed(storage, applier)
        if applier.applied != recovered.chosen:
            raise DamagedError(
                f"the log ends at slot {applier.applied}, but slots up to {recovered.chosen} are recorded as chosen"
            )
        if applier.applied > stored:
            store_replayed(storage, applier)


def _with_state(write: Write, **state: Any) -> StateWrite:
    return StateWrite(write.promise, write.accepts, write.chosen, write.votes, **state)
