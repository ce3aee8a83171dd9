"""The state machine: the same chosen commands, applied in order, give the same state on every replica.

The state machine is deterministic (rule 21): it uses no clock, no randomness and no order of a set. The request ids of
batches are part of the state, so a batch that was ordered twice, because its origin repeated it to a new leader, is
applied once (rule 22).
"""

from collections.abc import Iterable, Iterator
from zlib import crc32

from sortedcontainers import SortedList

from kvstore.api.commands import (
    Command,
    CommandBatch,
    Delete,
    DeleteResult,
    DeleteSpan,
    Idempotent,
    KeyResult,
    LeaseCommand,
    LeasedPut,
    NotFound,
    NotReconfigured,
    Put,
    PutResult,
    Reconfigure,
    Reconfigured,
    Record,
    RepeatableCommand,
    Result,
    Transact,
)
from kvstore.api.key_range import Span
from kvstore.api.membership import Membership, MembershipVersion, in_force_from, refusal
from kvstore.state_machine.digest import DIGEST_MASK, RECORD_BYTES, digest_of, pack_numbers, position_of, size_of
from kvstore.state_machine.history import History
from kvstore.state_machine.idempotency import run_idempotent
from kvstore.state_machine.lease_index import LeaseIndex, attached_key, is_internal
from kvstore.state_machine.leases import end_if_unused, run_lease
from kvstore.state_machine.request_ids import RequestIds
from kvstore.state_machine.transactions import run
from kvstore.state_machine.view import STEP_RECORDS, Steps, complete
from paxos.types import Slot
from storage.base import LAST_SUB_REVISION, SUB_REVISION_BITS, Change, first_of, revision_of, sub_revision_of

_new_tuple = tuple.__new__


class StateMachine:
    """Keys and their records, and a revision that grows by one with each command that changes a record."""

    def __init__(self, memberships: list[MembershipVersion]) -> None:
        """Start without records. `memberships` are those with which the cluster starts."""
        self.memberships = memberships
        """Memberships that decide the next slots, after the last complete entry. The last may not be in force yet."""
        self._reconfigured: list[MembershipVersion] | None = None
        """Memberships that replace `memberships` at the end of the present entry, None if it changes none."""
        self.records: dict[bytes, Record] = {}
        self.position = 0
        """Position of the last change."""
        self.digest = 0
        """Sum of `digest_of` over all records. States with the same records have the same digest."""
        self.size_bytes = 0
        """Bytes of the records: keys, values and `RECORD_BYTES` for each."""
        self.superseded_bytes = 0
        """Bytes of superseded records and tombstones."""
        self.changes: list[Change] = []
        """Changes since this list was last taken, in order."""
        self.request_ids = RequestIds()
        self.history = History()
        """The latest changes. Their number is not part of the state: replicas may keep more or fewer."""
        self.change_count = 0
        """Number of changes that were made or loaded."""
        self._sorted: SortedList[bytes] | None = SortedList()
        """Keys of all records and of all changes in the history, in order; None while a state is loaded."""
        self._internal: dict[bytes, Record] = {}
        self._lease_index: LeaseIndex | None = LeaseIndex()
        """Index of the internal records; None while a state is loaded."""
        self._first = first_of(1)
        """Position of the first change of the present command."""
        self._before_entry = 0
        """Position before the present log entry."""
        self._detached_from: list[int] = []
        """Bound leases from which the present command detached a key."""

    @property
    def revision(self) -> int:
        """The revision of the store: that of the last change."""
        return revision_of(self.position)

    def get(self, key: bytes) -> Record | None:
        """Return the present record of `key`."""
        return self.records.get(key)

    def begin_entry(self) -> None:
        """Begin a log entry. It ends with `end_entry`."""
        self._before_entry = self.position
        self.lease_index.before_entry.clear()

    def suspend_entry(self) -> None:
        """Show readers the state before the log entry until the entry ends. The history must keep its changes."""
        self.history.shown = self._before_entry

    def end_entry(self) -> None:
        """Show the state and the memberships after the log entry to readers."""
        self.history.shown = None
        if self._reconfigured is not None:
            self.memberships, self._reconfigured = self._reconfigured, None

    @property
    def shown_position(self) -> int:
        """Position of the last change that readers may see."""
        return self.position if self.history.shown is None else self.history.shown

    @property
    def shown_revision(self) -> int:
        """The revision of the state that readers may see."""
        return revision_of(self.shown_position)

    def shown(self, key: bytes) -> Record | None:
        """Return the record of `key` that readers may see."""
        present = self.records.get(key)
        return present if self.history.shown is None else self.history.as_of(key, self.shown_revision, present)

    def shown_lease(self, key: bytes) -> int:
        """Return the lease of `key` that readers may see, 0 for none."""
        lease_index = self.lease_index
        present = lease_index.lease_of.get(key, 0)
        return present if self.history.shown is None else lease_index.before_entry.get(key, present)

    @property
    def command_revision(self) -> int:
        """The revision of the changes that the present command makes."""
        return revision_of(self._first)

    @property
    def lease_index(self) -> LeaseIndex:
        """The client leases, with their attached keys, locks and kept answers."""
        if self._lease_index is None:
            self._lease_index = LeaseIndex(self._internal.items())
        return self._lease_index

    def internal(self, key: bytes) -> Record | None:
        """Return the internal record under `key`."""
        return self._internal.get(key)

    def keys(self, span: Span) -> Iterator[bytes]:
        """Yield the present keys of `span`, in order. No key may be added meanwhile."""
        return filter(self.records.__contains__, self._in_order().irange(span.start, span.end, inclusive=(True, False)))

    def records_in(self, span: Span) -> Iterator[Record]:
        """Yield the records of the present keys of `span`, in order. No key may be added meanwhile."""
        return filter(None, map(self.records.get, self._in_order().irange(span.start, span.end, (True, False))))

    def most_keys(self, span: Span) -> int:
        """Return a bound on the number of present keys of `span`: deleted keys that the history still has count too."""
        keys = self._in_order()
        end = len(keys) if span.end is None else keys.bisect_left(span.end)
        return max(0, end - keys.bisect_left(span.start))

    def as_of(self, span: Span, revision: int, *, reverse: bool = False) -> Iterator[tuple[bytes, Record | None]]:
        """Yield the keys of `span`, in order, with their records as of `revision`, which must not be compacted. Keys
        of the history that were absent then have None. No record may change meanwhile."""
        for key in self._in_order().irange(span.start, span.end, inclusive=(True, False), reverse=reverse):
            yield key, self.history.as_of(key, revision, self.records.get(key))

    def forget(self, upto: int, most: int | None = None) -> None:
        """Drop the history up to position `upto`, at most `most` changes; later calls drop the rest."""
        for key in self.history.compact(upto, most):
            if self._sorted is not None and key not in self.records:
                self._sorted.remove(key)

    def sort(self) -> None:
        """Order the keys and build the lease index after loading, so that no request waits for that."""
        self._in_order()
        _ = self.lease_index

    def _in_order(self) -> "SortedList[bytes]":
        if self._sorted is None:
            self._sorted = SortedList({*self.records, *self.history.keys()})
        return self._sorted

    def growth(self, key: bytes, value: bytes) -> int:
        """Return the bytes by which a put would change `size_bytes`."""
        old = self.records.get(key)
        return len(value) - len(old.value) if old is not None else size_of(key, value)

    @property
    def membership(self) -> Membership:
        """The membership after the last complete entry."""
        return self.memberships[-1].membership if self.memberships else Membership()

    def apply(self, batch: CommandBatch, slot: Slot) -> list[Result] | None:
        """Do all steps of `apply_in_steps` at once."""
        return complete(self.apply_in_steps(batch, slot))

    def apply_in_steps(self, batch: CommandBatch, slot: Slot) -> Steps[list[Result] | None]:
        """Apply a batch that was ordered in `slot`, and return the results of its commands, in order. Return None if
        the batch was applied before or comes from an earlier process of its origin: then no client waits for it.
        Between two steps a command may be done in part: readers use the methods that show the state as of
        `shown_position`, and nothing else is applied.
        """
        if not self.request_ids.admit(batch):
            return None
        results: list[Result] = []
        work = 0
        for command in batch.commands:
            if type(command) is Put:
                self._first = first_of(self.revision + 1)
                results.append(self.put(command.key, command.value))
                if self._detached_from:
                    yield from self._end_unused()
            else:
                results.append((yield from self._apply(command, slot)))
            work += 1
            if work == STEP_RECORDS:
                yield work
                work = 0
        yield work
        return results

    def load(self, change: Change) -> None:
        """Load a stored change. Changes must be loaded in the order of their positions."""
        position, key, value, create_revision, version, _ = change
        internal = is_internal(key)
        records = self._internal if internal else self.records
        self._sorted = self._lease_index = None
        old = records.pop(key, None)
        if old is not None:
            self._forget(key, old)
        self.position = position
        self.change_count += 1
        if value is None:
            record = None
            self.superseded_bytes += size_of(key, b"")
        else:
            record = Record(value, revision_of(position), create_revision, version, sub_revision_of(position))
            records[key] = record
            self.digest = (self.digest + digest_of(key, record)) & DIGEST_MASK
            self.size_bytes += size_of(key, value)
        if position > self.history.compacted and not internal:
            self.history.add(position, key, record, old)

    def _apply(self, command: Command, slot: Slot) -> Steps[Result]:
        self._first = first_of(self.revision + 1)
        result: Result
        match command:
            case Reconfigure(membership=membership):
                return self._reconfigure(membership, slot)
            case Idempotent():
                result = yield from run_idempotent(command, self, self._do)
            case _:
                result = yield from self._do(command)
        if self._detached_from:
            yield from self._end_unused()
        return result

    def _do(self, command: RepeatableCommand | LeaseCommand) -> Steps[KeyResult]:
        match command:
            case Put(key=key, value=value):
                return self.put(key, value)
            case Delete(key=key):
                return self.delete(key)
            case DeleteSpan() | LeasedPut() | Transact():
                return (yield from run(command, self))
            case _:
                return (yield from run_lease(command, self))

    def put(self, key: bytes, value: bytes, lease: int = 0) -> PutResult:
        """Set `key` to `value`, and attach the key to `lease`, or detach it if `lease` is 0.

        Every replica runs this code for each PUT, so it inlines small helpers.
        """
        position = self._first if self.position < self._first else self.position + 1
        self.position = position
        self.change_count += 1
        revision, sub_revision = position >> SUB_REVISION_BITS, position & LAST_SUB_REVISION
        records = self.records
        old = records.get(key)
        if old is None:
            created, version, superseded, forgotten = revision, 1, 0, 0
            self.size_bytes += len(key) + len(value) + RECORD_BYTES
            if self._sorted is not None and not self.history.holds(key):
                self._sorted.add(key)
        else:
            created, version = old.create_revision, old.version + 1
            superseded, forgotten = old.revision << SUB_REVISION_BITS | old.sub_revision, digest_of(key, old)
            old_bytes = len(old.value)
            self.size_bytes += len(value) - old_bytes
            self.superseded_bytes += len(key) + old_bytes + RECORD_BYTES
        records[key] = record = Record(value, revision, created, version, sub_revision)
        self.history.add(position, key, record, old)
        self.digest = (self.digest - forgotten + digest_of(key, record)) & DIGEST_MASK
        self.changes.append(_new_tuple(Change, (position, key, value, created, version, superseded)))
        if self.lease_index.lease_of.get(key, 0) != lease:
            self._attach(key, lease)
        return PutResult(revision, version)

    def delete(self, key: bytes) -> DeleteResult | NotFound:
        """Remove `key`."""
        old = self.records.pop(key, None)
        if old is None:
            return NotFound(self.revision)
        position = self._remove(key, old)
        self.history.add(position, key, None, old)
        if key in self.lease_index.lease_of:
            self._attach(key, 0)
        return DeleteResult(revision_of(position), old.version, old.revision)

    def delete_all(self, keys: Iterable[bytes]) -> None:
        """Remove `keys`, all of which are present: as `delete`, in one loop with small helpers inlined."""
        records, lease_of = self.records, self.lease_index.lease_of
        add_change, add_to_history = self.changes.append, self.history.add
        digest = size_bytes = 0
        for key in keys:
            old = records.pop(key)
            position = self._first if self.position < self._first else self.position + 1
            self.position = position
            self.change_count += 1
            revision, sub_revision = old.revision, old.sub_revision
            numbers = pack_numbers(revision, sub_revision, old.create_revision, old.version)
            digest += crc32(old.value, crc32(numbers + key))
            size_bytes += len(key) + len(old.value) + RECORD_BYTES
            self.superseded_bytes += 2 * (len(key) + RECORD_BYTES) + len(old.value)
            superseded = revision << SUB_REVISION_BITS | sub_revision
            add_change(_new_tuple(Change, (position, key, None, 0, 0, superseded)))
            add_to_history(position, key, None, old)
            if key in lease_of:
                self._attach(key, 0)
        self.digest = (self.digest - digest) & DIGEST_MASK
        self.size_bytes -= size_bytes

    def put_internal(self, key: bytes, value: bytes) -> None:
        """Set the internal record under `key` to `value`."""
        position = max(self.position + 1, self._first)
        self.position = position
        self.change_count += 1
        revision, sub_revision = revision_of(position), sub_revision_of(position)
        old = self._internal.get(key)
        if old is None:
            record = Record(value, revision, revision, 1, sub_revision)
        else:
            record = Record(value, revision, old.create_revision, old.version + 1, sub_revision)
            self._forget(key, old)
        self._internal[key] = record
        self.digest = (self.digest + digest_of(key, record)) & DIGEST_MASK
        self.size_bytes += size_of(key, value)
        superseded = position_of(old) if old is not None else 0
        self.changes.append(Change(position, key, value, record.create_revision, record.version, superseded))
        self.lease_index.put(key, record)

    def delete_internal(self, key: bytes) -> None:
        """Remove the internal record under `key`, which must exist."""
        self._remove(key, self._internal.pop(key))
        self.lease_index.delete(key)

    def _remove(self, key: bytes, old: Record) -> int:
        """Add the deletion of the record `old` to the changes. Return the position of the deletion."""
        position = max(self.position + 1, self._first)
        self.position = position
        self.change_count += 1
        self._forget(key, old)
        self.superseded_bytes += size_of(key, b"")
        self.changes.append(Change(position, key, None, 0, 0, position_of(old)))
        return position

    def _attach(self, key: bytes, lease: int) -> None:
        """Detach `key` from its lease, if it has one, and attach it to `lease` unless that is 0."""
        before = self.lease_index.lease_of.get(key, 0)
        if before:
            self.delete_internal(attached_key(before, key))
            if self.lease_index.leases[before].terms.bound:
                self._detached_from.append(before)
        if lease:
            self.put_internal(attached_key(lease, key), b"")

    def _end_unused(self) -> Steps[None]:
        """End the bound leases to which nothing is attached any more. This happens at the end of a command, because a
        transaction may attach a key to the lease again."""
        for number, lease in enumerate(self._detached_from, start=1):
            end_if_unused(lease, self)
            if number % STEP_RECORDS == 0:
                yield STEP_RECORDS
        self._detached_from.clear()

    def _reconfigure(self, membership: Membership, slot: Slot) -> Reconfigured | NotReconfigured:
        memberships = self._reconfigured or self.memberships
        if (why := refusal(memberships, membership, slot)) is not None:
            return NotReconfigured(why)
        self._reconfigured = [memberships[-1], MembershipVersion(in_force_from(slot), membership)]
        return Reconfigured(membership, self._reconfigured[-1].first)

    def _forget(self, key: bytes, record: Record) -> None:
        self.digest = (self.digest - digest_of(key, record)) & DIGEST_MASK
        size = size_of(key, record.value)
        self.size_bytes -= size
        self.superseded_bytes += size
