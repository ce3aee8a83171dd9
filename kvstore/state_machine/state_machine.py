"""The state machine: the same chosen commands, applied in order, give the same state on every replica.

The state machine is deterministic (rule 21): it uses no clock, no randomness and no order of a set. The request ids of
batches are part of the state, so a batch that was ordered twice, because its origin repeated it to a new leader, is
applied once (rule 22).
"""

from collections.abc import Iterator
from struct import Struct
from zlib import crc32

import msgspec
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
from kvstore.state_machine.history import History
from kvstore.state_machine.idempotency import run_idempotent
from kvstore.state_machine.lease_index import LeaseIndex, attached_key, is_internal
from kvstore.state_machine.leases import end_if_unused, run_lease
from kvstore.state_machine.transactions import run
from paxos.types import Slot
from storage.base import LAST_SUB_REVISION, SUB_REVISION_BITS, Change, first_of, revision_of, sub_revision_of

RECORD_BYTES = 64
"""Bytes that the quota counts for a record beside its key and value."""

DIGEST_MASK = 2**64 - 1
"""Digests are sums modulo DIGEST_MASK + 1."""
_pack_numbers = Struct("<QQQQ").pack
_new_tuple = tuple.__new__


class Origin:
    """The batches of one node that were applied: all below `settled`, and those in `applied`."""

    def __init__(self, boot: int, settled: int = 1, applied: tuple[int, ...] = ()) -> None:
        self.boot = boot
        self.settled = settled
        self.applied = set(applied)

    def admit(self, sequence: int, settled_below: int) -> bool:
        """Record a batch as applied. Return False if it was applied before."""
        if sequence < self.settled or sequence in self.applied:
            return False
        self.applied.add(sequence)
        while self.settled < settled_below:
            self.applied.discard(self.settled)
            self.settled += 1
        return True


class _PackedOrigin(msgspec.Struct, frozen=True, array_like=True):
    node: str
    boot: int
    settled: int
    applied: tuple[int, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_PackedOrigin])


class StateMachine:
    """Keys and their records, and a revision that grows by one with each command that changes a record."""

    def __init__(self, memberships: list[MembershipVersion]) -> None:
        """Start without records. `memberships` are those with which the cluster starts."""
        self.memberships = memberships
        """Memberships that decide the next slots. The last one may not be in force yet."""
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
        self._origins: dict[str, Origin] = {}
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
        self._detached_from: list[int] = []
        """Bound leases from which the present command detached a key."""

    @property
    def revision(self) -> int:
        """The revision of the store: that of the last change."""
        return revision_of(self.position)

    def get(self, key: bytes) -> Record | None:
        """Return the present record of `key`."""
        return self.records.get(key)

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
        """Yield the present keys of `span`, in order. No record may change meanwhile."""
        return (
            key for key in self._in_order().irange(span.start, span.end, inclusive=(True, False)) if key in self.records
        )

    def as_of(self, span: Span, revision: int, *, reverse: bool = False) -> Iterator[tuple[bytes, Record]]:
        """Yield the keys of `span`, in order, with their records as of `revision`, which must not be compacted. No
        record may change meanwhile."""
        for key in self._in_order().irange(span.start, span.end, inclusive=(True, False), reverse=reverse):
            record = self.history.as_of(key, revision, self.records.get(key))
            if record is not None:
                yield key, record

    def forget(self, upto: int) -> None:
        """Drop the history up to position `upto`."""
        for key in self.history.compact(upto):
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
        return len(value) - len(old.value) if old is not None else _size(key, value)

    @property
    def membership(self) -> Membership:
        """The membership by the last change."""
        return self.memberships[-1].membership if self.memberships else Membership()

    def apply(self, batch: CommandBatch, slot: Slot) -> list[Result] | None:
        """Apply a batch that was ordered in `slot`, and return the results of its commands, in order. Return None if
        the batch was applied before or comes from an earlier process of its origin: then no client waits for it."""
        origin = self._origins.get(batch.origin)
        if origin is None or origin.boot < batch.boot:
            origin = self._origins[batch.origin] = Origin(batch.boot)
        if batch.boot < origin.boot or not origin.admit(batch.sequence, batch.settled_below):
            return None
        return [self._apply(command, slot) for command in batch.commands]

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
            self.superseded_bytes += _size(key, b"")
        else:
            record = Record(value, revision_of(position), create_revision, version, sub_revision_of(position))
            records[key] = record
            self.digest = (self.digest + digest_of(key, record)) & DIGEST_MASK
            self.size_bytes += _size(key, value)
        if position > self.history.compacted and not internal:
            self.history.add(position, key, record, old)

    def pack_origins(self) -> bytes:
        """Return the stored form of the request ids, the part of the state that is not in records."""
        return _encoder.encode(
            [
                _PackedOrigin(node, origin.boot, origin.settled, tuple(sorted(origin.applied)))
                for node, origin in sorted(self._origins.items())
            ]
        )

    def unpack_origins(self, packed: bytes) -> None:
        """Load the result of `pack_origins`. Raises msgspec.DecodeError for other bytes."""
        self._origins = {
            origin.node: Origin(origin.boot, origin.settled, origin.applied) for origin in _decoder.decode(packed)
        }

    def _apply(self, command: Command, slot: Slot) -> Result:
        self._first = first_of(self.revision + 1)
        result: Result
        match command:
            case Put(key=key, value=value):
                result = self.put(key, value)
            case Reconfigure(membership=membership):
                return self._reconfigure(membership, slot)
            case Idempotent():
                result = run_idempotent(command, self, self._do)
            case _:
                result = self._do(command)
        if self._detached_from:
            self._end_unused()
        return result

    def _do(self, command: RepeatableCommand | LeaseCommand) -> KeyResult:
        match command:
            case Put(key=key, value=value):
                return self.put(key, value)
            case Delete(key=key):
                return self.delete(key)
            case DeleteSpan() | LeasedPut() | Transact():
                return run(command, self)
            case _:
                return run_lease(command, self)

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
        self.size_bytes += _size(key, value)
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
        self.superseded_bytes += _size(key, b"")
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

    def _end_unused(self) -> None:
        """End the bound leases to which nothing is attached any more. This happens at the end of a command, because a
        transaction may attach a key to the lease again."""
        for lease in self._detached_from:
            end_if_unused(lease, self)
        self._detached_from.clear()

    def _reconfigure(self, membership: Membership, slot: Slot) -> Reconfigured | NotReconfigured:
        why = refusal(self.memberships, membership, slot)
        if why is not None:
            return NotReconfigured(why)
        self.memberships = [self.memberships[-1], MembershipVersion(in_force_from(slot), membership)]
        return Reconfigured(membership, self.memberships[-1].first)

    def _forget(self, key: bytes, record: Record) -> None:
        self.digest = (self.digest - digest_of(key, record)) & DIGEST_MASK
        size = _size(key, record.value)
        self.size_bytes -= size
        self.superseded_bytes += size


def position_of(record: Record) -> int:
    """Return the position of the put that made `record`."""
    return record.revision << SUB_REVISION_BITS | record.sub_revision


def digest_of(key: bytes, record: Record) -> int:
    """Return the 32-bit number that a record adds to the digest."""
    numbers = _pack_numbers(record.revision, record.sub_revision, record.create_revision, record.version)
    return crc32(record.value, crc32(numbers + key))


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + RECORD_BYTES
