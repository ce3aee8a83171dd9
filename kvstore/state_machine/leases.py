"""Commands on client leases and on locks.

They are deterministic (rule 21). The leader decides when a lease expires: it orders an ExpireLease, which has an effect
only while this leader is the one that was recorded last (see `kvstore.replica.lease_expiry`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import assert_never

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    ExpireLease,
    GrantLease,
    KeepLeaseAlive,
    LeaderResult,
    LeaseCommand,
    LeasedPut,
    LeaseEnded,
    LeaseFull,
    LeaseGranted,
    LeaseNotFound,
    LeaseResult,
    LockHeld,
    LockNotHeld,
    LockReleased,
    Operation,
    PutResult,
    RecordLeader,
    ReleaseLock,
    RevokeLease,
    Transact,
)
from kvstore.state_machine.lease_index import LEADER_KEY, LeaseTerms, QueueEntry, lease_key, pack, queue_entry_key
from kvstore.state_machine.view import STEP_RECORDS, Records, Steps

MAX_ATTACHED = 10_000
"""Limit of the keys, and of the locks, that are attached to one lease. They end in one command, and no other command is
applied meanwhile."""


def run_lease(command: LeaseCommand, records: Records) -> Steps[LeaseResult]:
    """Do `command` and return its result. A refused command changes nothing."""
    match command:
        case GrantLease(ttl_ms=ttl_ms):
            return LeaseGranted(_grant(ttl_ms, records), ttl_ms)
        case KeepLeaseAlive(lease=lease, ttl_ms=ttl_ms):
            return _keep_alive(lease, ttl_ms, records)
        case RevokeLease(lease=lease):
            if lease not in records.lease_index.leases:
                return LeaseNotFound(lease)
            return LeaseEnded(records.command_revision, (yield from end(lease, records)))
        case AcquireLock():
            return _acquire(command, records)
        case ReleaseLock(name=name, lease=lease):
            return _release(name, lease, records)
        case RecordLeader():
            return LeaderResult(_record_leader(command, records))
        case ExpireLease():
            return LeaderResult((yield from _expire(command, records)))
        case _:
            assert_never(command)


def put_leased(command: LeasedPut, records: Records) -> PutResult:
    """Put a key with a lease. The caller has checked with `refusal_of` that the lease exists and is not full."""
    lease = command.lease or _grant(command.ttl_ms, records, bound=True)
    return records.put(command.key, command.value, lease)


def refusal_of(operations: Iterable[Operation], records: Records) -> LeaseNotFound | LeaseFull | None:
    """Return the reason why a key of `operations`, in any of their branches, cannot be attached to its lease."""
    keys_of: defaultdict[int, set[bytes]] = defaultdict(set)
    for put in _leased(operations):
        keys_of[put.lease].add(put.key)
    for lease, keys in keys_of.items():
        found = records.lease_index.leases.get(lease)
        if found is None:
            return LeaseNotFound(lease)
        if len(found.keys) + len(keys - found.keys) > MAX_ATTACHED:
            return LeaseFull(lease)
    return None


def _leased(operations: Iterable[Operation]) -> Iterator[LeasedPut]:
    for operation in operations:
        if isinstance(operation, LeasedPut) and operation.lease:
            yield operation
        elif isinstance(operation, Transact):
            yield from _leased(operation.then)
            yield from _leased(operation.otherwise)


def end(lease: int, records: Records) -> Steps[int]:
    """End `lease`: delete its attached keys, queue entries and kept answers. Return the number of deleted keys."""
    ending = records.lease_index.leases[lease]
    keys = sorted(ending.keys)
    for number, record_key in enumerate(list(ending.records(lease)), start=1):
        records.delete_internal(record_key)
        if number % STEP_RECORDS == 0:
            yield STEP_RECORDS
    for first in range(0, len(keys), STEP_RECORDS):
        records.delete_all(keys[first : first + STEP_RECORDS])
        yield STEP_RECORDS
    return len(keys)


def end_if_unused(lease: int, records: Records) -> None:
    """End `lease` if it is bound and nothing is attached to it any more.

    A lease with kept answers stays until its time is over. A command may detach keys from a lease each, so it could not
    delete all their answers: it has one revision, with a limited number of changes.
    """
    found = records.lease_index.leases.get(lease)
    if found is not None and found.terms.bound and found.size == 1:
        records.delete_internal(lease_key(lease))


def _grant(ttl_ms: int, records: Records, *, bound: bool = False) -> int:
    """Grant a lease and return its number: the revision of the command, which grants no other lease."""
    lease = records.command_revision
    records.put_internal(lease_key(lease), pack(LeaseTerms(ttl_ms, bound)))
    return lease


def _keep_alive(lease: int, ttl_ms: int, records: Records) -> LeaseGranted | LeaseNotFound:
    """Write the record of the lease again, which raises its version, see `ExpireLease`."""
    found = records.lease_index.leases.get(lease)
    if found is None:
        return LeaseNotFound(lease)
    terms = LeaseTerms(ttl_ms or found.terms.ttl_ms, found.terms.bound)
    records.put_internal(lease_key(lease), pack(terms))
    return LeaseGranted(lease, terms.ttl_ms)


def _acquire(command: AcquireLock, records: Records) -> AcquireResult | LockHeld | LeaseNotFound | LeaseFull:
    name, lease = command.name, command.lease
    holder = records.lease_index.holder(name)
    if lease:
        found = records.lease_index.leases.get(lease)
        if found is None:
            return LeaseNotFound(lease)
        for token, locked in found.queue_entries.items():
            if locked == name:  # the request is repeated
                return AcquireResult(lease, token, holder is not None and holder[0] == token)
        if len(found.queue_entries) >= MAX_ATTACHED:
            return LeaseFull(lease)
    if holder is not None and not command.queue:
        token, entry = holder
        return LockHeld(entry.lease, token)
    lease = lease or _grant(command.ttl_ms, records, bound=True)
    token = records.command_revision  # tokens grow, and the lowest one in the queue holds the lock
    records.put_internal(queue_entry_key(token, name), pack(QueueEntry(lease, command.value)))
    return AcquireResult(lease, token, holder is None)


def _release(name: bytes, lease: int, records: Records) -> LockReleased | LockNotHeld:
    found = records.lease_index.leases.get(lease)
    token = (
        next((token for token, locked in found.queue_entries.items() if locked == name), 0) if found is not None else 0
    )
    if found is None or not token:
        return LockNotHeld()
    records.delete_internal(queue_entry_key(token, name))
    end_if_unused(lease, records)
    return LockReleased(records.command_revision)


def _record_leader(command: RecordLeader, records: Records) -> bool:
    """Record the leader, unless another leader was recorded since the command was made."""
    record = records.internal(LEADER_KEY)
    if (record.version if record is not None else 0) != command.replaced:
        return False
    records.put_internal(LEADER_KEY, command.leader.encode())
    return True


def _expire(command: ExpireLease, records: Records) -> Steps[bool]:
    lease, leader = records.lease_index.leases.get(command.lease), records.internal(LEADER_KEY)
    if lease is None or lease.version != command.version:
        return False
    if leader is None or leader.value != command.leader.encode():
        return False
    yield from end(command.lease, records)
    return True
