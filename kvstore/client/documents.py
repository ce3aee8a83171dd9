"""Transactions and records as the JSON of `kvstore.server.http.transactions` and `kvstore.api.json`."""

from base64 import b64encode
from collections.abc import Iterable
from typing import assert_never

import msgspec

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    DeleteSpanResult,
    Get,
    KeyState,
    LeasedPut,
    List,
    ListedKeys,
    NotFound,
    Operation,
    OperationResult,
    Put,
    PutResult,
    Record,
    Relation,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.json import Document, text_or_base64
from kvstore.api.key_range import Span


class KeyDocument(msgspec.Struct):
    """A key, and a revision of it."""

    revision: int
    key: str | None = None
    key_base64: bytes = b""

    @property
    def name(self) -> bytes:
        """The key's bytes."""
        return self.key.encode() if self.key is not None else self.key_base64


class RecordDocument(KeyDocument, kw_only=True):
    """A key with what it holds."""

    create_revision: int
    version: int
    value: str | None = None
    value_base64: bytes = b""
    lease: int = 0

    def found(self) -> KeyState:
        """The same as the state machine has it."""
        value = self.value.encode() if self.value is not None else self.value_base64
        return KeyState(self.name, Record(value, self.revision, self.create_revision, self.version), self.lease)


class ListDocument(msgspec.Struct):
    """Records in order; with `more` there are others, behind `cursor` where there are pages."""

    records: list[RecordDocument]
    more: bool
    cursor: str = ""


class _Deleted(msgspec.Struct):
    """`version` and `deleted_revision`, of what was deleted, are there for a single key that was."""

    revision: int
    deleted: int
    version: int = 0
    deleted_revision: int = 0


class _Result(msgspec.Struct):
    put: PutResult | None = None
    delete: _Deleted | None = None
    get: RecordDocument | None = None
    list: ListDocument | None = None
    txn: "_Transacted | None" = None


class _Transacted(msgspec.Struct):
    succeeded: bool
    revision: int
    results: list[_Result]


_decode = msgspec.json.Decoder(_Transacted).decode


def pack_transaction(transaction: Transact) -> bytes:
    """The body of a request for it."""
    return msgspec.json.encode(_transaction(transaction))


def pack_operation(operation: Operation) -> bytes:
    """It as one of the operations of such a body."""
    return msgspec.json.encode(_operation(operation))


def pack_batch(operations: Iterable[bytes]) -> bytes:
    """The body of a request for these operations, packed, without a condition."""
    return b'{"then":[' + b",".join(operations) + b"]}"


def unpack_transacted(body: bytes, asked: Transact) -> TransactResult:
    """What the answer says."""
    return _transacted(_decode(body), asked)


def _transacted(found: _Transacted, asked: Transact) -> TransactResult:
    operations = asked.then if found.succeeded else asked.otherwise
    results = [_result(each, operation) for each, operation in zip(found.results, operations, strict=True)]
    return TransactResult(found.succeeded, found.revision, results)


def _result(found: _Result, asked: Operation) -> OperationResult:
    match asked:
        case Get(key=key):
            return found.get.found() if found.get is not None else KeyState(key, None)
        case List() if found.list is not None:
            return ListedKeys([record.found() for record in found.list.records], found.list.more)
        case Transact() if found.txn is not None:
            return _transacted(found.txn, asked)
        case Delete() if found.delete is not None:
            gone = found.delete
            if not gone.deleted:
                return NotFound(gone.revision)
            return DeleteResult(gone.revision, gone.version, gone.deleted_revision)
        case DeleteSpan() if found.delete is not None:
            return DeleteSpanResult(found.delete.revision, found.delete.deleted)
        case _ if found.put is not None:
            return found.put
        case _:
            raise ValueError(f"{asked} was answered with {found}")


def _transaction(transaction: Transact) -> Document:
    return {
        "compare": [_compare(compare) for compare in transaction.compares],
        "then": [_operation(operation) for operation in transaction.then],
        "else": [_operation(operation) for operation in transaction.otherwise],
    }


def _compare(compare: Compare) -> Document:
    operand = compare.operand
    if compare.target is Target.FENCING_TOKEN and isinstance(compare.on, bytes):
        return {**text_or_base64("lock", compare.on), "fence": operand}
    on = _on(compare.on)
    if compare.target is Target.EXISTS:
        if compare.relation not in {Relation.EQUAL, Relation.NOT_EQUAL}:
            raise ValueError(f"existence is not {compare.relation}: compare it by eq or ne")
        return {**on, "exists": bool(operand) == (compare.relation is Relation.EQUAL)}
    if isinstance(operand, bytes):
        return {**on, f"{compare.target}_base64": {compare.relation: b64encode(operand).decode()}}
    return {**on, compare.target: {compare.relation: operand}}


def _operation(operation: Operation) -> Document:
    match operation:
        case Put(key=key, value=value):
            return {"put": {**text_or_base64("key", key), **text_or_base64("value", value)}}
        case LeasedPut(key=key, value=value, lease=lease):
            return {"put": {**text_or_base64("key", key), **text_or_base64("value", value), "lease": lease}}
        case Get(key=key):
            return {"get": _on(key)}
        case Delete(key=key):
            return {"delete": _on(key)}
        case DeleteSpan(span=span):
            return {"delete": _on(span)}
        case List(span=span, limit=limit):
            return {"list": {**_on(span), "limit": limit}}
        case Transact():
            return {"txn": _transaction(operation)}
        case _:
            assert_never(operation)


def _on(keys: bytes | Span) -> Document:
    if isinstance(keys, bytes):
        return text_or_base64("key", keys)
    return {**text_or_base64("start", keys.start), **(text_or_base64("end", keys.end) if keys.end is not None else {})}
