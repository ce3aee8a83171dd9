"""Commands that read and change many keys at once: all of it in one revision, and nothing else in between.

Deterministic, as the state machine is (rule 21): only the records matter, and keys are taken in order.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Protocol, assert_never

from kvstore.commands import (
    MOST_AT_ONCE,
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    Found,
    Get,
    List,
    Listed,
    NotFound,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Record,
    Relation,
    SpanDeleted,
    Target,
    TooManyKeys,
    Transact,
    Transacted,
)
from kvstore.ranges import Span
from storage.base import first_of


class Records(Protocol):
    """The state, as far as these commands are concerned."""

    @property
    def revision(self) -> int:
        """Of the last change."""

    def get(self, key: bytes) -> Record | None:
        """What `key` holds."""

    def keys(self, span: Span) -> Iterator[bytes]:
        """The keys of `span`, in order."""

    def growth(self, key: bytes, value: bytes) -> int:
        """By how much a put would change the size of the state."""

    def put(self, key: bytes, value: bytes, position: int) -> PutResult:
        """Make `value` what `key` holds."""

    def delete(self, key: bytes, position: int) -> DeleteResult | NotFound:
        """Remove `key`."""


def run(command: DeleteSpan | Transact, records: Records) -> SpanDeleted | Transacted | TooManyKeys:
    """Do all of `command`, or nothing."""
    if not _is_bounded(command, records):
        return TooManyKeys()
    execution = _Execution(records)
    if isinstance(command, DeleteSpan):
        return execution.delete_span(command.span)
    return execution.transact(command)


def _is_bounded(command: DeleteSpan | Transact, records: Records) -> bool:
    """Whether it looks at no more than MOST_AT_ONCE keys, whichever way its conditions turn out. Not more than so many
    are counted."""
    left = MOST_AT_ONCE
    for span, limit in _spans(command):
        left -= sum(1 for _ in islice(records.keys(span), min(limit, left + 1)))
        if left < 0:
            return False
    return True


def _spans(operation: Operation) -> Iterator[tuple[Span, int]]:
    """What it goes through key by key, and how many of them at most."""
    match operation:
        case DeleteSpan(span=span):
            yield span, MOST_AT_ONCE + 1
        case List(span=span, limit=limit):
            yield span, limit
        case Transact(compares=compares, then=then, otherwise=otherwise):
            for compare in compares:
                if isinstance(compare.on, Span) and compare.target is not Target.EXISTS:
                    yield compare.on, MOST_AT_ONCE + 1
            for branch in (then, otherwise):
                for each in branch:
                    if not isinstance(each, Put | Get | Delete):
                        yield from _spans(each)
        case _:
            return


def growth_of(operation: Operation, records: Records) -> int:
    """By how many bytes the state may grow at most."""
    if isinstance(operation, Put):
        return records.growth(operation.key, operation.value)
    if isinstance(operation, Transact):
        branches = (operation.then, operation.otherwise)
        return max(sum(max(0, growth_of(each, records)) for each in branch) for branch in branches)
    return 0


class _Execution:
    """One command at work."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._revision = records.revision + 1
        self._next = first_of(self._revision)

    def transact(self, command: Transact) -> Transacted:
        succeeded = all(holds(compare, self._records) for compare in command.compares)
        results = [self._do(operation) for operation in (command.then if succeeded else command.otherwise)]
        return Transacted(succeeded, self._records.revision, results)

    def delete_span(self, span: Span) -> SpanDeleted:
        keys = list(self._records.keys(span))
        for key in keys:
            self._delete(key)
        return SpanDeleted(self._records.revision, len(keys))

    def _do(self, operation: Operation) -> OperationResult:
        match operation:
            case Put(key=key, value=value):
                self._next += 1
                return self._records.put(key, value, self._next - 1)
            case Delete(key=key):
                return self._delete(key)
            case DeleteSpan(span=span):
                return self.delete_span(span)
            case Get(key=key):
                return Found(key, self._records.get(key))
            case List(span=span, limit=limit):
                return list_span(self._records, span, limit)
            case Transact():
                return self.transact(operation)
            case _:
                assert_never(operation)

    def _delete(self, key: bytes) -> DeleteResult | NotFound:
        result = self._records.delete(key, self._next)
        if isinstance(result, DeleteResult):
            self._next += 1
        return result


def list_span(records: Records, span: Span, limit: int) -> Listed:
    """The first `limit` keys of `span`."""
    keys = list(islice(records.keys(span), limit + 1))
    return Listed([Found(key, records.get(key)) for key in keys[:limit]], len(keys) > limit)


def holds(compare: Compare, records: Records) -> bool:
    """Whether the condition is true now; see `Compare`."""
    on = compare.on
    if isinstance(on, bytes):
        return _holds_for(records.get(on), compare)
    if compare.target is Target.EXISTS:
        return _relates(int(any(True for _ in records.keys(on))), compare.relation, compare.operand)
    return all(_holds_for(records.get(key), compare) for key in records.keys(on))


def _holds_for(record: Record | None, compare: Compare) -> bool:
    relation, operand = compare.relation, compare.operand
    match compare.target:
        case Target.EXISTS:
            return _relates(int(record is not None), relation, operand)
        case Target.VALUE:
            return _relates(record.value, relation, operand) if record is not None else relation is Relation.NOT_EQUAL
        case Target.VERSION:
            return _relates(record.version if record is not None else 0, relation, operand)
        case Target.REVISION:
            return _relates(record.revision if record is not None else 0, relation, operand)
        case Target.CREATE_REVISION:
            return _relates(record.create_revision if record is not None else 0, relation, operand)
        case _:
            assert_never(compare.target)


def _relates(found: int | bytes, relation: Relation, operand: int | bytes) -> bool:
    """False where the two are of different kinds: no front end lets that through, but the log is not to be trusted to
    stop a replica."""
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
