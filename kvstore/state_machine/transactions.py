"""Commands that read and change many keys in one revision.

They are deterministic (rule 21): the results depend only on the records, and keys are processed in order. A command on
spans is done in steps, see `kvstore.state_machine.view.Steps`.
"""

import operator
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from operator import attrgetter
from typing import Any, assert_never

from kvstore.api.commands import (
    MAX_KEYS,
    Compare,
    Delete,
    DeleteSpan,
    DeleteSpanResult,
    Get,
    KeyState,
    LeasedPut,
    LeaseFull,
    LeaseNotFound,
    List,
    ListedKeys,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Record,
    Relation,
    Target,
    TooManyKeys,
    Transact,
    TransactResult,
)
from kvstore.api.key_range import Span
from kvstore.state_machine.leases import put_leased, refusal_of
from kvstore.state_machine.view import SCANNED_RECORDS, STEP_RECORDS, Records, Steps

_PLAIN = frozenset({Put, Delete, Get})
_SCANNED_PER_RECORD = SCANNED_RECORDS // STEP_RECORDS
_FIELDS: dict[Target, Callable[[Record], Any]] = {
    Target.VALUE: attrgetter("value"),
    Target.VERSION: attrgetter("version"),
    Target.REVISION: attrgetter("revision"),
    Target.CREATE_REVISION: attrgetter("create_revision"),
}
"""The properties that a record itself has."""
_RELATIONS: dict[Relation, Callable[[Any, Any], bool]] = {
    Relation.EQUAL: operator.eq,
    Relation.NOT_EQUAL: operator.ne,
    Relation.LESS: operator.lt,
    Relation.GREATER: operator.gt,
}


def run(
    command: DeleteSpan | LeasedPut | Transact, records: Records
) -> Steps[DeleteSpanResult | PutResult | TransactResult | TooManyKeys | LeaseNotFound | LeaseFull]:
    """Do all of `command` and return its result, or do nothing and return the reason."""
    if not _is_plain(command):
        if not (yield from _is_bounded(command, records)):
            return TooManyKeys()
        refused = refusal_of([command], records)
        if refused is not None:
            return refused
    match command:
        case DeleteSpan():
            return (yield from _delete_span(command, records))
        case LeasedPut():
            return put_leased(command, records)
        case Transact():
            return (yield from _transact(command, records))
        case _:
            assert_never(command)


def _is_plain(command: Operation) -> bool:
    """Return True for a transaction on single keys without leases, such as a batch of writes. It is never refused."""
    if not isinstance(command, Transact) or any(isinstance(compare.on, Span) for compare in command.compares):
        return False
    return _PLAIN.issuperset(map(type, command.then)) and _PLAIN.issuperset(map(type, command.otherwise))


def _is_bounded(command: Operation, records: Records) -> Steps[bool]:
    """Return True if `command` reads or deletes at most MAX_KEYS keys of spans, counted over its conditions and both
    branches. Keys are counted only where a bound on their number is too high, and only up to the limit."""
    spans = list(spans_of(command))
    if sum(min(records.most_keys(span), limit) for span, limit in spans) <= MAX_KEYS:
        return True
    left = MAX_KEYS
    for span, limit in spans:
        keys = islice(records.keys(span), min(limit, left + 1))
        while count := sum(1 for _ in islice(keys, SCANNED_RECORDS)):
            left -= count
            yield count // _SCANNED_PER_RECORD
        if left < 0:
            return False
    return True


def spans_of(operation: Operation) -> Iterator[tuple[Span, int]]:
    """Yield the spans that `operation` reads key by key, each with the largest number of keys to read."""
    match operation:
        case DeleteSpan(span=span, limit=limit):
            yield span, limit or MAX_KEYS + 1
        case List(span=span, limit=limit):
            yield span, limit
        case Transact(compares=compares, then=then, otherwise=otherwise):
            for compare in compares:
                if isinstance(compare.on, Span) and compare.target is not Target.EXISTS:
                    yield compare.on, MAX_KEYS + 1
            for branch in (then, otherwise):
                for each in branch:
                    if not isinstance(each, Put | LeasedPut | Get | Delete):
                        yield from spans_of(each)
        case _:
            return


def _transact(command: Transact, records: Records) -> Steps[TransactResult]:
    succeeded = True
    for compare in command.compares:
        succeeded = yield from holds(compare, records)
        if not succeeded:
            break
    put = records.put
    results: list[OperationResult] = []
    for operation in command.then if succeeded else command.otherwise:
        if isinstance(operation, Put):
            results.append(put(operation.key, operation.value))
        else:
            results.append((yield from _do(operation, records)))
        if len(results) % STEP_RECORDS == 0:
            yield STEP_RECORDS
    return TransactResult(succeeded, records.revision, results)


def _delete_span(command: DeleteSpan, records: Records) -> Steps[DeleteSpanResult]:
    keys, deleted = islice(records.keys(command.span), command.limit or None), 0
    while some := list(islice(keys, STEP_RECORDS)):  # deleted keys stay in the order, because they are in the history
        records.delete_all(some)
        deleted += len(some)
        yield len(some)
    more = bool(command.limit) and any(True for _ in records.keys(command.span))
    return DeleteSpanResult(records.revision, deleted, more)


def _do(operation: LeasedPut | Delete | DeleteSpan | Get | List | Transact, records: Records) -> Steps[OperationResult]:
    match operation:
        case Delete(key=key):
            return records.delete(key)
        case DeleteSpan():
            return (yield from _delete_span(operation, records))
        case LeasedPut():
            return put_leased(operation, records)
        case Get(key=key):
            return found(key, records)
        case List(span=span, limit=limit):
            listed = list_span(records, span, limit)
            yield len(listed.found)
            return listed
        case Transact():
            return (yield from _transact(operation, records))
        case _:
            assert_never(operation)


def list_span(records: Records, span: Span, limit: int) -> ListedKeys:
    """Return the first `limit` keys of `span`."""
    keys = list(islice(records.keys(span), limit + 1))
    return ListedKeys([found(key, records) for key in keys[:limit]], len(keys) > limit)


def found(key: bytes, records: Records) -> KeyState:
    """Return the present state of `key`."""
    return KeyState(key, records.get(key), records.lease_index.lease_of.get(key, 0))


def holds(compare: Compare, records: Records) -> Steps[bool]:
    """Return True if the condition holds now, see `Compare`."""
    on = compare.on
    if isinstance(on, bytes):
        return _holds_for(on, compare, records)
    if compare.target is Target.EXISTS:
        return _relates(int(any(True for _ in records.keys(on))), compare.relation, compare.operand)
    field = _FIELDS.get(compare.target)
    if field is not None:
        return (yield from _holds_for_records(compare, records.records_in(on), field))
    keys = records.keys(on)
    while some := list(islice(keys, STEP_RECORDS)):
        if not all(_holds_for(key, compare, records) for key in some):
            return False
        yield len(some)
    return True


def _holds_for_records(
    compare: Compare, records: Iterator[Record], field: Callable[[Record], int | bytes]
) -> Steps[bool]:
    """Return True if the condition holds for each of `records`. The loops are in C: a condition may be on MAX_KEYS."""
    relates, operand = _RELATIONS[compare.relation], compare.operand
    while some := list(islice(records, SCANNED_RECORDS)):
        if isinstance(field(some[0]), bytes) != isinstance(operand, bytes):
            return False
        if not all(map(relates, map(field, some), repeat(operand))):
            return False
        yield len(some) // _SCANNED_PER_RECORD
    return True


def _holds_for(key: bytes, compare: Compare, records: Records) -> bool:
    relation, operand = compare.relation, compare.operand
    record = records.get(key)
    if compare.target is Target.VALUE:
        return _relates(record.value, relation, operand) if record is not None else relation is Relation.NOT_EQUAL
    return _relates(_number(compare.target, key, record, records), relation, operand)


def _number(target: Target, key: bytes, record: Record | None, records: Records) -> int:
    """Return the property of the record that `target` names, for all targets except the value."""
    match target:
        case Target.EXISTS:
            return int(record is not None)
        case Target.VERSION:
            return record.version if record is not None else 0
        case Target.REVISION:
            return record.revision if record is not None else 0
        case Target.CREATE_REVISION:
            return record.create_revision if record is not None else 0
        case Target.LEASE:
            return records.lease_index.lease_of.get(key, 0)
        case Target.FENCING_TOKEN:
            holder = records.lease_index.holder(key)
            return holder[0] if holder is not None else 0
        case _:
            raise AssertionError(f"{target} is no number")


def _relates(found: int | bytes, relation: Relation, operand: int | bytes) -> bool:
    """Return True if `found` has `relation` to `operand`; False if their types differ. Front ends refuse such an
    operand, but no log entry may stop a replica."""
    if isinstance(found, bytes) != isinstance(operand, bytes):
        return False
    return _RELATIONS[relation](found, operand)
