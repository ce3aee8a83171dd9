"""A second, plainer implementation of the commands: every record that ever was, by position, and every result.

It stores what the product stores, and shares with it the form of keys and values, and no rule.
"""

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from struct import Struct
from typing import NamedTuple

import msgspec

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    AnswerExpired,
    Command,
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    DeleteSpanResult,
    ExpireLease,
    Get,
    GrantLease,
    IdempotencyKeyReused,
    Idempotent,
    KeepLeaseAlive,
    KeyState,
    LeaderResult,
    LeasedPut,
    LeaseEnded,
    LeaseGranted,
    LeaseNotFound,
    LockHeld,
    LockNotHeld,
    LockReleased,
    NotFound,
    Operation,
    Put,
    PutResult,
    Record,
    RecordLeader,
    ReleaseLock,
    Result,
    RevokeLease,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.key_range import Span
from kvstore.state_machine.lease_index import (
    LEADER_KEY,
    LeaseTerms,
    QueueEntry,
    answer_key,
    attached_key,
    lease_key,
    pack,
    queue_entry_key,
)
from storage.base import first_of, revision_of, sub_revision_of

NOT_KEPT = (LeaseNotFound, LockHeld, LockNotHeld)
"""Results of commands that did nothing: a repeated request does them again."""
_numbers = Struct("<QQQQ").pack


class ModelChange(NamedTuple):
    """A change of `key` at `position`, from `old` to `record`; `previous` is the position of the change before, 0 for
    none."""

    position: int
    key: bytes
    record: Record | None
    old: Record | None
    previous: int


def is_internal(key: bytes) -> bool:
    """Whether it is the key of a lease, or of what belongs to one."""
    return key[:1] == b"\0"


class ModelLease:
    """A lease that lives, and what hangs on it."""

    def __init__(self, ttl_ms: int, *, bound: bool) -> None:
        self.ttl_ms = ttl_ms
        self.bound = bound
        self.keys: set[bytes] = set()
        self.locks: dict[int, bytes] = {}
        """The name of the lock, by fencing token."""
        self.answers: dict[int, tuple[bytes, Result]] = {}
        """Fingerprint and answer of each number that is kept."""
        self.top = 0


class Model:
    """The records, after every change that there was."""

    def __init__(self, kept: int) -> None:
        """`kept`: how many numbers of a lease have their answers kept."""
        self._kept = kept
        self.position = 0
        self.present: dict[bytes, Record] = {}
        self.changes: list[ModelChange] = []
        self._positions: list[int] = []
        self._changes_of: dict[bytes, list[ModelChange]] = defaultdict(list)
        self.leases: dict[int, ModelLease] = {}
        self.lease_of: dict[bytes, int] = {}
        self._attachments: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        """The lease of each key that ever had one, from a position on."""
        self.queues: dict[bytes, dict[int, tuple[int, bytes]]] = defaultdict(dict)
        """Lease and value of each entry of the queue for a lock, by fencing token."""
        self.digest = 0
        self.size_bytes = 0
        self._first = 0
        self._left: list[int] = []
        """Bound leases that lost a key in this command."""

    # What there was

    def changes_after(self, position: int, upto: int, span: Span | None = None) -> list[ModelChange]:
        """Those of clients' keys, of `span` only if there is one, behind `position` and up to `upto`."""
        first, end = bisect_right(self._positions, position), bisect_right(self._positions, upto)
        found = [change for change in self.changes[first:end] if not is_internal(change.key)]
        return found if span is None else [change for change in found if change.key in span]

    def record(self, key: bytes, position: int) -> Record | None:
        """What `key` held once the change at `position` was made."""
        changes = self._changes_of.get(key, [])
        index = bisect_right(changes, position, key=lambda change: change.position)
        return changes[index - 1].record if index else None

    def records(self, position: int) -> dict[bytes, Record]:
        """Everything as of `position`, what belongs to leases included."""
        found = {key: self.record(key, position) for key in self._changes_of}
        return {key: record for key, record in found.items() if record is not None}

    def lease_at(self, key: bytes, position: int) -> int:
        """The lease that `key` hung on once the change at `position` was made, 0 for none."""
        attachments = self._attachments.get(key, [])
        index = bisect_right(attachments, position, key=lambda attachment: attachment[0])
        return attachments[index - 1][1] if index else 0

    def keys_ever(self, span: Span) -> list[bytes]:
        """The keys of clients in `span` that ever had a record, in order."""
        return sorted(key for key in self._changes_of if key in span and not is_internal(key))

    # Commands

    def restored(self, key: bytes, record: Record, position: int) -> None:
        """A record with which the cluster begins."""
        self.position = position - 1
        self._first = 0
        self._change(key, record)

    def do(self, command: Command | Operation) -> Result:
        """Do it, and return its result."""
        self._first = first_of(revision_of(self.position) + 1)
        result = self._once(command) if isinstance(command, Idempotent) else self._do(command)
        for lease in self._left:
            self._end_if_unused(lease)
        self._left.clear()
        return result

    @property
    def _revision(self) -> int:
        return revision_of(self.position)

    @property
    def _revision_now(self) -> int:
        """That of the changes of this command."""
        return revision_of(self._first)

    def _change(self, key: bytes, record: Record | None) -> None:
        self.position = max(self.position + 1, self._first)
        old = self.present.pop(key, None)
        for sign, each in ((-1, old), (1, record)):
            if each is not None:
                numbers = _numbers(each.revision, each.sub_revision, each.create_revision, each.version)
                self.digest = (self.digest + sign * zlib.crc32(numbers + key + each.value)) % 2**64
                self.size_bytes += sign * (len(key) + len(each.value) + 64)
        if record is not None:
            self.present[key] = record
        before = self._changes_of[key][-1].position if key in self._changes_of else 0
        change = ModelChange(self.position, key, record, old, before)
        self.changes.append(change)
        self._positions.append(self.position)
        self._changes_of[key].append(change)

    def _set(self, key: bytes, value: bytes) -> Record:
        position = max(self.position + 1, self._first)
        revision, old = revision_of(position), self.present.get(key)
        created, version = (old.create_revision, old.version + 1) if old is not None else (revision, 1)
        record = Record(value, revision, created, version, sub_revision_of(position))
        self._change(key, record)
        return record

    def _do(self, command: Command | Operation) -> Result:
        done: Result | None
        match command:
            case Put(key=key, value=value):
                done = self._put(key, value, 0)
            case Delete(key=key):
                old = self.present.get(key)
                if old is None:
                    return NotFound(self._revision)
                self._delete(key)
                done = DeleteResult(self._revision, old.version, old.revision)
            case Get(key=key):
                done = KeyState(key, self.present.get(key), self.lease_of.get(key, 0))
            case DeleteSpan(span=span, limit=0):
                keys = [key for key in self.keys_ever(span) if key in self.present]
                for key in keys:
                    self._delete(key)
                done = DeleteSpanResult(self._revision, len(keys))
            case Transact(compares=compares, then=then, otherwise=otherwise):
                leases = [each.lease for each in (*then, *otherwise) if isinstance(each, LeasedPut) and each.lease]
                gone = next((lease for lease in leases if lease not in self.leases), None)
                if gone is not None:
                    return LeaseNotFound(gone)
                holds = all(map(self._holds, compares))
                results = [self._do(each) for each in (then if holds else otherwise)]
                done = TransactResult(holds, self._revision, results)  # type: ignore[arg-type]  # of operations
            case LeasedPut(key=key, value=value, lease=lease, ttl_ms=ttl_ms):
                if lease and lease not in self.leases:
                    return LeaseNotFound(lease)
                done = self._put(key, value, lease or self._grant(ttl_ms, bound=True))
            case AcquireLock():
                done = self._acquire(command)
            case _:
                done = self._lease(command)
        return done

    def _put(self, key: bytes, value: bytes, lease: int) -> PutResult:
        record = self._set(key, value)
        self._hang(key, lease)
        return PutResult(record.revision, record.version)

    def _delete(self, key: bytes) -> None:
        self._change(key, None)
        self._hang(key, 0)

    def _hang(self, key: bytes, lease: int) -> None:
        """Hang `key` on `lease`, or on none for 0."""
        before = self.lease_of.get(key, 0)
        if before == lease:
            return
        if before:
            self._change(attached_key(before, key), None)
            self.leases[before].keys.remove(key)
            del self.lease_of[key]
            if self.leases[before].bound:
                self._left.append(before)
        if lease:
            self._set(attached_key(lease, key), b"")
            self.leases[lease].keys.add(key)
            self.lease_of[key] = lease
        self._attachments[key].append((self.position, lease))

    def _holds(self, compare: Compare) -> bool:
        """Clients of the simulation only ask whether a key has a value, or is absent, and whether a fence holds."""
        assert isinstance(compare.on, bytes)
        if compare.target is Target.FENCING_TOKEN:
            return next(iter(self.queues.get(compare.on, {})), 0) == compare.operand
        record = self.present.get(compare.on)
        if compare.target is Target.EXISTS:
            return (record is not None) == bool(compare.operand)
        assert compare.target is Target.VALUE
        return record is not None and record.value == compare.operand

    # Leases

    def _lease(self, command: Command | Operation) -> Result:
        match command:
            case GrantLease(ttl_ms=ttl_ms):
                return LeaseGranted(self._grant(ttl_ms, bound=False), ttl_ms)
            case KeepLeaseAlive(lease=lease, ttl_ms=ttl_ms):
                return self._renew(lease, ttl_ms)
            case RevokeLease(lease=lease):
                if lease not in self.leases:
                    return LeaseNotFound(lease)
                return LeaseEnded(self._revision_now, self._end(lease))
            case ReleaseLock(name=name, lease=lease):
                return self._release(name, lease)
            case RecordLeader(leader=leader, replaced=replaced):
                record = self.present.get(LEADER_KEY)
                if replaced != (record.version if record is not None else 0):
                    return LeaderResult(False)
                self._set(LEADER_KEY, leader.encode())
                return LeaderResult(True)
            case ExpireLease(lease=lease, version=version, leader=leader):
                leads = self.present.get(LEADER_KEY)
                is_over = lease in self.leases and self.present[lease_key(lease)].version == version
                if not is_over or leads is None or leads.value != leader.encode():
                    return LeaderResult(False)
                self._end(lease)
                return LeaderResult(True)
            case _:
                raise AssertionError(f"the model does not know {command}")

    def _grant(self, ttl_ms: int, *, bound: bool) -> int:
        lease = self._revision_now
        self.leases[lease] = ModelLease(ttl_ms, bound=bound)
        self._set(lease_key(lease), pack(LeaseTerms(ttl_ms, bound)))
        return lease

    def _renew(self, lease: int, ttl_ms: int) -> Result:
        found = self.leases.get(lease)
        if found is None:
            return LeaseNotFound(lease)
        found.ttl_ms = ttl_ms or found.ttl_ms
        self._set(lease_key(lease), pack(LeaseTerms(found.ttl_ms, found.bound)))
        return LeaseGranted(lease, found.ttl_ms)

    def _end(self, lease: int) -> int:
        ending, keys = self.leases[lease], sorted(self.leases[lease].keys)
        for key in keys:
            self._change(attached_key(lease, key), None)
            del self.lease_of[key]
            self._attachments[key].append((self.position, 0))
        for token, name in sorted(ending.locks.items()):
            self._change(queue_entry_key(token, name), None)
            del self.queues[name][token]
        for number in sorted(ending.answers):
            self._change(answer_key(lease, number), None)
        self._change(lease_key(lease), None)
        del self.leases[lease]
        for key in keys:
            self._change(key, None)
        return len(keys)

    def _end_if_unused(self, lease: int) -> None:
        found = self.leases.get(lease)
        if found is not None and found.bound and not (found.keys or found.locks or found.answers):
            self._end(lease)

    def _acquire(self, command: AcquireLock) -> Result:
        name, lease, queue = command.name, command.lease, self.queues[command.name]
        if lease and lease not in self.leases:
            return LeaseNotFound(lease)
        for token, (other, _) in queue.items():
            if other == lease:
                return AcquireResult(lease, token, token == min(queue))
        if queue and not command.queue:
            holds = min(queue)
            return LockHeld(queue[holds][0], holds)
        lease = lease or self._grant(command.ttl_ms, bound=True)
        token, held = self._revision_now, not queue
        self._set(queue_entry_key(token, name), pack(QueueEntry(lease, command.value)))
        queue[token] = (lease, command.value)
        self.leases[lease].locks[token] = name
        return AcquireResult(lease, token, held)

    def _release(self, name: bytes, lease: int) -> Result:
        token = next((token for token, (other, _) in self.queues[name].items() if other == lease), 0)
        if not token:
            return LockNotHeld()
        self._change(queue_entry_key(token, name), None)
        del self.queues[name][token], self.leases[lease].locks[token]
        self._end_if_unused(lease)
        return LockReleased(self._revision_now)

    def _once(self, command: Idempotent) -> Result:
        lease, number = self.leases.get(command.lease), command.number
        if lease is None or number <= lease.top - self._kept:
            return AnswerExpired()
        if number in lease.answers:
            fingerprint, answer = lease.answers[number]
            return answer if fingerprint == command.fingerprint else IdempotencyKeyReused()
        answer = self._do(command.command)
        if isinstance(answer, NOT_KEPT) or command.lease not in self.leases:
            return answer
        lease.top = max(lease.top, number)
        lease.answers[number] = (command.fingerprint, answer)
        self._set(answer_key(command.lease, number), msgspec.msgpack.encode([command.fingerprint, answer]))
        for old in sorted(old for old in lease.answers if old <= lease.top - self._kept):
            del lease.answers[old]
            self._change(answer_key(command.lease, old), None)
        return answer


def keys_of(command: Command | Operation, every: Callable[[Span], Iterable[bytes]]) -> Iterable[bytes]:
    """The keys of clients that `command` may change. `every`: those of a span that ever had a record."""
    match command:
        case Put(key=key) | Delete(key=key):
            return [key]
        case DeleteSpan(span=span):
            return every(span)
        case Transact(then=then, otherwise=otherwise):
            return [key for each in (*then, *otherwise) for key in keys_of(each, every)]
        case Idempotent(command=command):
            return keys_of(command, every)
        case LeasedPut() | ExpireLease() | RevokeLease():
            return every(Span(b"\1", None))
        case _:
            return []
