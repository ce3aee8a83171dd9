"""Commands that read and change many keys in one revision.

They are deterministic (rule 21): the results depend only on the records, and keys are processed in order.
"""

from collections.abc import Iterator
from itertools import islice
from typing import assert_never

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
from kvstore.state_machine.view import Records

_PLAIN = frozenset({Put, Delete, Get})


def run(
    command: DeleteSpan | LeasedPut | Transact, records: Records
) -> DeleteSpanResult | PutResult | TransactResult | TooManyKeys | LeaseNotFound | LeaseFull:
    """Do all of `command` and return its result, or do nothing and return the reason."""
    if not _is_plain(command):
        if not _is_bounded(command, records):
            return TooManyKeys()
        refused = refusal_of([command], records)
        if refused is not None:
            return refused
    match command:
        case DeleteSpan(span=span):
            return _delete_span(span, records)
        case LeasedPut():
            return put_leased(command, records)
        case Transact():
            return _transact(command, records)
        case _:
            assert_never(command)


def _is_plain(command: Operation) -> bool:
    """Return True for a transaction on single keys without leases, such as a batch of writes. It is never refused."""
    if not isinstance(command, Transact) or any(isinstance(compare.on, Span) for compare in command.compares):
        return False
    return _PLAIN.issuperset(map(type, command.then)) and _PLAIN.issuperset(map(type, command.otherwise))


def _is_bounded(command: Operation, records: Records) -> bool:
    """Return True if `command` reads or deletes at most MAX_KEYS keys of spans, counted over its conditions and both
    branches. Counting stops at the limit."""
    left = MAX_KEYS
    for span, limit in _spans(command):
        left -= sum(1 for _ in islice(records.keys(span), min(limit, left + 1)))
        if left < 0:
            return False
    return True


def _spans(operation: Operation) -> Iterator[tuple[Span, int]]:
    """Yield the spans that `operation` reads key by key, each with the largest number of keys to read."""
    match operation:
        case DeleteSpan(span=span):
            yield span, MAX_KEYS + 1
        case List(span=span, limit=limit):
            yield span, limit
        case Transact(compares=compares, then=then, otherwise=otherwise):
            for compare in compares:
                if isinstance(compare.on, Span) and compare.target is not Target.EXISTS:
                    yield compare.on, MAX_KEYS + 1
            for branch in (then, otherwise):
                for each in branch:
                    if not isinstance(each, Put | LeasedPut | Get | Delete):
                        yield from _spans(each)
        case _:
            return


def _transact(command: Transact, records: Records) -> TransactResult:
    succeeded = all(holds(compare, records) for compare in command.compares)
    put = records.put
    results = [
        put(operation.key, operation.value) if isinstance(operation, Put) else _do(operation, records)
        for operation in (command.then if succeeded else command.otherwise)
    ]
    return TransactResult(succeeded, records.revision, results)


def _delete_span(span: Span, records: Records) -> DeleteSpanResult:
    keys = list(records.keys(span))
    for key in keys:
        records.delete(key)
    return DeleteSpanResult(records.revision, len(keys))


def _do(operation: LeasedPut | Delete | DeleteSpan | Get | List | Transact, records: Records) -> OperationResult:
    match operation:
        case Delete(key=key):
            return records.delete(key)
        case DeleteSpan(span=span):
            return _delete_span(span, records)
        case LeasedPut():
            return put_leased(operation, records)
        case Get(key=key):
            return found(key, records)
        case List(span=span, limit=limit):
            return list_span(records, span, limit)
        case Transact():
            return _transact(operation, records)
        case _:
            assert_never(operation)


def list_span(records: Records, span: Span, limit: int) -> ListedKeys:
    """Return the first `limit` keys of `span`."""
    keys = list(islice(records.keys(span), limit + 1))
    return ListedKeys([found(key, records) for key in keys[:limit]], len(keys) > limit)


def found(key: bytes, records: Records) -> KeyState:
    """Return the present state of `key`."""
    return KeyState(key, records.get(key), records.lease_index.lease_of.get(key, 0))


def holds(compare: Compare, records: Records) -> bool:
    """Return True if the condition holds now, see `Compare`."""
    on = compare.on
    if isinstance(on, bytes):
        return _holds_for(on, compare, records)
    if compare.target is Target.EXISTS:
        return _relates(int(any(True for _ in records.keys(on))), compare.relation, compare.operand)
    return all(_holds_for(key, compare, records) for key in records.keys(on))


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
    match relation:
        case Relation.EQUAL:
            return found == operand
        case Relation.NOT_EQUAL:
            return found != operand
        case Relation.LESS:
            return found < operand  # type: ignore[operator]  # both are numbers, or both bytes
        case Relation.GREATER:
            return found > operand  # type: ignore[operator]
        case _:
            assert_never(relation)
