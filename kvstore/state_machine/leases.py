"""Commands on leases and locks.

Deterministic, as the state machine is (rule 21): that a lease is over is for the leader to say, by an entry of the log
that counts only while that leader is the last one that has said who it is (see `kvstore.replica.lease_expiry`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import assert_never

from kvstore.api.commands import (
    Acquire,
    Busy,
    Expire,
    Grant,
    Granted,
    KeepAlive,
    Lead,
    LeaseCommand,
    LeasedPut,
    LeaseEnded,
    LeaseFull,
    LeaseResult,
    NoSuchLease,
    NotHeld,
    Operation,
    Placed,
    PutResult,
    Release,
    Released,
    Revoke,
    Said,
    Transact,
)
from kvstore.state_machine.lease_index import LEADER_KEY, LeaseTerms, QueueEntry, lease_key, pack, place_key
from kvstore.state_machine.view import Records

MOST_HELD = 10_000
"""Keys, and locks, that may hang on one lease: they end together, and nothing else is applied meanwhile."""


def run_lease(command: LeaseCommand, records: Records) -> LeaseResult:
    """Do `command`, or nothing."""
    match command:
        case Grant(ttl_ms=ttl_ms):
            return Granted(_grant(ttl_ms, records), ttl_ms)
        case KeepAlive(lease=lease):
            return _keep_alive(lease, records)
        case Revoke(lease=lease):
            if lease not in records.lease_index.leases:
                return NoSuchLease(lease)
            return LeaseEnded(records.under_way, end(lease, records))
        case Acquire():
            return _acquire(command, records)
        case Release(name=name, lease=lease):
            return _release(name, lease, records)
        case Lead():
            return Said(_lead(command, records))
        case Expire():
            return Said(_expire(command, records))
        case _:
            assert_never(command)


def put_leased(command: LeasedPut, records: Records) -> PutResult:
    """Its lease lives, and is not full: `refusal_of` has found nothing."""
    lease = command.lease or _grant(command.ttl_ms, records, bound=True)
    return records.put(command.key, command.value, lease)


def refusal_of(operations: Iterable[Operation], records: Records) -> NoSuchLease | LeaseFull | None:
    """Why what is to go with leases cannot, in any of the branches of `operations`."""
    more: defaultdict[int, set[bytes]] = defaultdict(set)
    for put in _leased(operations):
        more[put.lease].add(put.key)
    for lease, keys in more.items():
        found = records.lease_index.leases.get(lease)
        if found is None:
            return NoSuchLease(lease)
        if len(found.keys) + len(keys - found.keys) > MOST_HELD:
            return LeaseFull(lease)
    return None


def _leased(operations: Iterable[Operation]) -> Iterator[LeasedPut]:
    for operation in operations:
        if isinstance(operation, LeasedPut) and operation.lease:
            yield operation
        elif isinstance(operation, Transact):
            yield from _leased(operation.then)
            yield from _leased(operation.otherwise)


def end(lease: int, records: Records) -> int:
    """It lives no more, nor does anything that hangs on it. Gives the number of keys that are deleted."""
    ending = records.lease_index.leases[lease]
    keys = sorted(ending.keys)
    for own in list(ending.records(lease)):
        records.delete_own(own)
    for key in keys:
        records.delete(key)
    return len(keys)


def end_if_bare(lease: int, records: Records) -> None:
    """It lives no more if it was granted for a key or a place, and none hangs on it now."""
    found = records.lease_index.leases.get(lease)
    if found is not None and found.terms.bound and not found.keys and not found.places:
        end(lease, records)


def _grant(ttl_ms: int, records: Records, *, bound: bool = False) -> int:
    """A new lease is named by its revision: nothing else is granted in that."""
    lease = records.under_way
    records.put_own(lease_key(lease), pack(LeaseTerms(ttl_ms, bound)))
    return lease


def _keep_alive(lease: int, records: Records) -> Granted | NoSuchLease:
    """The record is written anew, which counts its version up: see `Expire`."""
    found = records.lease_index.leases.get(lease)
    if found is None:
        return NoSuchLease(lease)
    records.put_own(lease_key(lease), pack(found.terms))
    return Granted(lease, found.terms.ttl_ms)


def _acquire(command: Acquire, records: Records) -> Placed | Busy | NoSuchLease | LeaseFull:
    name, lease = command.name, command.lease
    holder = records.lease_index.holder(name)
    if lease:
        found = records.lease_index.leases.get(lease)
        if found is None:
            return NoSuchLease(lease)
        for fence, locked in found.places.items():
            if locked == name:  # it asks again
                return Placed(lease, fence, holder is not None and holder[0] == fence)
        if len(found.places) >= MOST_HELD:
            return LeaseFull(lease)
    if holder is not None and not command.queue:
        fence, place = holder
        return Busy(place.lease, fence)
    lease = lease or _grant(command.ttl_ms, records, bound=True)
    fence = records.under_way  # it grows, and so does that of the holder: who has the lowest one holds the lock
    records.put_own(place_key(fence, name), pack(QueueEntry(lease, command.value)))
    return Placed(lease, fence, holder is None)


def _release(name: bytes, lease: int, records: Records) -> Released | NotHeld:
    found = records.lease_index.leases.get(lease)
    fence = next((fence for fence, locked in found.places.items() if locked == name), 0) if found is not None else 0
    if found is None or not fence:
        return NotHeld()
    records.delete_own(place_key(fence, name))
    end_if_bare(lease, records)
    return Released(records.under_way)


def _lead(command: Lead, records: Records) -> bool:
    """Only in place of the leader that it knows of: a word of an earlier one that comes late does not undo it."""
    record = records.own(LEADER_KEY)
    if (record.version if record is not None else 0) != command.replaced:
        return False
    records.put_own(LEADER_KEY, command.leader.encode())
    return True


def _expire(command: Expire, records: Records) -> bool:
    lease, leader = records.lease_index.leases.get(command.lease), records.own(LEADER_KEY)
    if lease is None or lease.version != command.version:
        return False
    if leader is None or leader.value != command.leader.encode():
        return False
    end(command.lease, records)
    return True
