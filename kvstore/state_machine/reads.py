"""Reads of more than the present record of one key: spans, past revisions, client leases and locks."""

from collections.abc import Callable
from heapq import nsmallest
from itertools import islice

from kvstore.api.commands import KeyState
from kvstore.api.queries import LeaseLookup, LeaseScan, LockLookup, Lookup, Scan
from kvstore.api.results import (
    LeasesAnswer,
    LeaseStatus,
    LockAnswer,
    QueueEntryStatus,
    ReadAnswer,
    RevisionUnavailable,
    ScanAnswer,
)
from kvstore.state_machine.lease_index import IndexedLease
from kvstore.state_machine.state_machine import StateMachine

MAX_ABSENT = 2000
"""Most absent keys that a scan passes, which takes a few milliseconds. Keys that were deleted remain in order while the
history has them."""
MAX_QUEUE_ENTRIES = 1001
"""Entries of a queue in an answer: the holder of the lock, and a thousand leases that wait."""


def look_up(
    query: Lookup | Scan, machine: StateMachine, applied: int, age_ms: float | None
) -> ReadAnswer | ScanAnswer | RevisionUnavailable:
    """Answer `query` from the state, which has applied the slots up to `applied`. `age_ms` is part of the answer."""
    newest, oldest = machine.shown_revision, machine.history.oldest
    revision = newest if query.revision is None else query.revision
    if not oldest <= revision <= newest:
        return RevisionUnavailable(oldest, newest)
    if isinstance(query, Scan):
        found, more, stopped_at = _scan(query, revision, machine)
        return ScanAnswer(found, more, applied, revision, age_ms, stopped_at)
    return ReadAnswer(machine.history.as_of(query.key, revision, machine.get(query.key)), applied, revision, age_ms)


def look_up_lease(
    query: LeaseLookup | LeaseScan | LockLookup, machine: StateMachine, left_ms: Callable[[int], float | None]
) -> LeasesAnswer | LockAnswer:
    """Answer `query` from the present state, which must not be in the midst of a log entry. `left_ms` returns the time
    that a lease has left, None if this replica does not know it."""
    lease_index, revision = machine.lease_index, machine.revision
    if isinstance(query, LockLookup):
        queue = lease_index.locks.get(query.name, {})
        first = islice(queue.items(), MAX_QUEUE_ENTRIES)
        shown = [QueueEntryStatus(entry.lease, token, entry.value) for token, entry in first]
        return LockAnswer(shown, len(queue) > MAX_QUEUE_ENTRIES, revision)
    leases = lease_index.leases
    if isinstance(query, LeaseLookup):
        found = leases.get(query.lease)
        status = [_status(query.lease, found, left_ms, sorted(found.keys))] if found is not None else []
        return LeasesAnswer(status, False, revision)
    numbers = nsmallest(query.limit + 1, (number for number in leases if number > query.after))
    listed = [_status(number, leases[number], left_ms, None) for number in numbers[: query.limit]]
    return LeasesAnswer(listed, len(numbers) > query.limit, revision)


def _status(
    number: int, lease: IndexedLease, left_ms: Callable[[int], float | None], keys: list[bytes] | None
) -> LeaseStatus:
    return LeaseStatus(number, lease.terms.ttl_ms, left_ms(number), len(lease.keys), keys)


def _scan(scan: Scan, revision: int, machine: StateMachine) -> tuple[list[KeyState], bool, bytes | None]:
    found: list[KeyState] = []
    room, absent = scan.max_bytes, 0
    if not scan.limit:
        return found, True, None
    for key, record in machine.as_of(scan.span, revision, reverse=scan.reverse):
        if record is None:
            absent += 1
            if absent == MAX_ABSENT:
                return found, True, key
            continue
        room -= len(key) + len(record.value)
        if len(found) == scan.limit or (found and room < 0):
            return found, True, None
        found.append(KeyState(key, record, machine.shown_lease(key)))
    return found, False, None
