"""The one right answer to a question at a slot, by the log."""

import msgspec
from msgspec.structs import replace

from kvstore.api.commands import KeyState, Record
from kvstore.api.queries import LeaseLookup, LeaseScan, LockLookup, Lookup, Query
from kvstore.api.results import (
    LeasesAnswer,
    LeaseStatus,
    LockAnswer,
    QueryAnswer,
    QueueEntryStatus,
    ReadAnswer,
    RevisionUnavailable,
    ScanAnswer,
)
from kvstore.state_machine.lease_index import LeaseTerms, QueueEntry
from paxos.types import Slot
from storage.base import end_of
from tests.simulation.model import Model
from tests.simulation.reference import Reference


def without_times(answer: QueryAnswer) -> QueryAnswer:
    """An answer without what the clocks of replicas say."""
    if isinstance(answer, ReadAnswer | ScanAnswer):
        return replace(answer, age_ms=None)
    if isinstance(answer, LeasesAnswer):
        return replace(answer, leases=[replace(lease, left_ms=None) for lease in answer.leases])
    return answer


def expected_answer(query: Query, reference: Reference, slot: Slot, oldest: int) -> QueryAnswer:
    """What a replica that has applied the log up to `slot` answers. `oldest`: the first revision that it can read."""
    model, position, newest = reference.model, reference.state(slot).position, reference.revision(slot)
    if isinstance(query, bytes):
        return ReadAnswer(model.record(query, position), slot, newest, None, model.lease_at(query, position))
    if isinstance(query, LeaseLookup | LeaseScan | LockLookup):
        return _leases(query, model, position, newest)
    revision = newest if query.revision is None else query.revision
    if not oldest <= revision <= newest:
        return RevisionUnavailable(oldest, newest)
    at = min(position, end_of(revision))
    if isinstance(query, Lookup):
        return ReadAnswer(model.record(query.key, at), slot, revision, None)
    found = [
        KeyState(key, record, model.lease_at(key, position))
        for key in sorted(model.keys_ever(query.span), reverse=query.reverse)
        if (record := model.record(key, at)) is not None
    ]
    return ScanAnswer(found[: query.limit], len(found) > query.limit, slot, revision, None)


def _leases(query: LeaseLookup | LeaseScan | LockLookup, model: Model, position: int, revision: int) -> QueryAnswer:
    """Leases and queues as of `position`, from the records that they are stored in."""
    records = model.records(position)
    if isinstance(query, LockLookup):
        entries = [
            QueueEntryStatus(entry.lease, token, entry.value)
            for key in sorted(records)
            if key[:2] == b"\0\3" and key[10:] == query.name
            for token, entry in [(int.from_bytes(key[2:10]), _entry(records[key].value))]
        ]
        return LockAnswer(entries, False, revision)
    numbers = sorted(int.from_bytes(key[2:10]) for key in records if key[:2] == b"\0\1")
    if isinstance(query, LeaseLookup):
        shown = [number for number in numbers if number == query.lease]
        return LeasesAnswer([_status(number, records, keys=True) for number in shown], False, revision)
    after = [number for number in numbers if number > query.after]
    listed = [_status(number, records, keys=False) for number in after[: query.limit]]
    return LeasesAnswer(listed, len(after) > query.limit, revision)


def _status(number: int, records: dict[bytes, Record], *, keys: bool) -> LeaseStatus:
    prefix = number.to_bytes(8)
    hanging = [key[10:] for key in sorted(records) if key[:2] == b"\0\2" and key[2:10] == prefix]
    terms = msgspec.msgpack.decode(records[b"\0\1" + prefix].value, type=LeaseTerms)
    return LeaseStatus(number, terms.ttl_ms, None, len(hanging), hanging if keys else None)


def _entry(value: bytes) -> QueueEntry:
    return msgspec.msgpack.decode(value, type=QueueEntry)
