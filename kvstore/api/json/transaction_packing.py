"""From the command of a transaction to the body of `POST /txn`, and back from the response to the results."""

from collections.abc import Iterable
from typing import Any, assert_never

import msgspec
from msgspec import UNSET

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
    Relation,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.json.transaction_request import (
    BytesRelations,
    CompareRequest,
    KeyRequest,
    KeysRequest,
    ListRequest,
    NumberRelations,
    OperationRequest,
    PutRequest,
    TransactionRequest,
)
from kvstore.api.json.transaction_result import OperationResultDocument, TransactionResultDocument
from kvstore.api.key_range import Span

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(TransactionResultDocument).decode


def pack_transaction(transaction: Transact) -> bytes:
    """Return the body of a request for `transaction`. Raises ValueError for a condition that JSON cannot express."""
    return _encode(_transaction(transaction))


def pack_operation(operation: Operation) -> bytes:
    """Return `operation` as it stands in such a body."""
    return _encode(_operation(operation))


def pack_operations(operations: Iterable[bytes]) -> bytes:
    """Return the body of a request for these packed operations, without a condition."""
    return b'{"then":[' + b",".join(operations) + b"]}"


def unpack_results(body: bytes, asked: Transact) -> TransactResult:
    """Return the results of the transaction `asked` from the body of the response."""
    return _results(_decode(body), asked)


def _transaction(transaction: Transact) -> TransactionRequest:
    return TransactionRequest(
        compare=[_compare(compare) for compare in transaction.compares],
        then=[_operation(operation) for operation in transaction.then],
        otherwise=[_operation(operation) for operation in transaction.otherwise],
    )


def _compare(compare: Compare) -> CompareRequest:
    on, target, relation, operand = compare.on, compare.target, compare.relation, compare.operand
    fields: dict[str, Any]
    if target is Target.FENCING_TOKEN and isinstance(on, bytes):
        return CompareRequest(**_text_or_base64("lock", on), fence=operand if isinstance(operand, int) else UNSET)
    if target is Target.EXISTS:
        if relation not in {Relation.EQUAL, Relation.NOT_EQUAL}:
            raise ValueError(f"existence is not {relation}: compare it by eq or ne")
        fields = {"exists": bool(operand) == (relation is Relation.EQUAL)}
    elif isinstance(operand, bytes):
        fields = {f"{target}_base64": BytesRelations(**{str(relation): operand})}
    else:
        fields = {str(target): NumberRelations(**{str(relation): operand})}
    return CompareRequest(**_on(on), **fields)


def _operation(operation: Operation) -> OperationRequest:
    match operation:
        case Put(key=key, value=value):
            return OperationRequest(put=PutRequest(**_text_or_base64("key", key), **_text_or_base64("value", value)))
        case LeasedPut(key=key, value=value, lease=lease):
            put = PutRequest(**_text_or_base64("key", key), **_text_or_base64("value", value), lease=lease)
            return OperationRequest(put=put)
        case Get(key=key):
            return OperationRequest(get=KeyRequest(**_text_or_base64("key", key)))
        case Delete(key=key):
            return OperationRequest(delete=KeysRequest(**_on(key)))
        case DeleteSpan(span=span):
            return OperationRequest(delete=KeysRequest(**_on(span)))
        case List(span=span, limit=limit):
            return OperationRequest(list=ListRequest(**_on(span), limit=limit))
        case Transact():
            return OperationRequest(txn=_transaction(operation))
        case _:
            assert_never(operation)


def _on(keys: bytes | Span) -> dict[str, Any]:
    if isinstance(keys, bytes):
        return _text_or_base64("key", keys)
    return {
        **_text_or_base64("start", keys.start),
        **(_text_or_base64("end", keys.end) if keys.end is not None else {}),
    }


def _text_or_base64(name: str, content: bytes) -> dict[str, Any]:
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": content}


def _results(found: TransactionResultDocument, asked: Transact) -> TransactResult:
    operations = asked.then if found.succeeded else asked.otherwise
    results = [_result(each, operation) for each, operation in zip(found.results, operations, strict=True)]
    return TransactResult(found.succeeded, found.revision, results)


def _result(found: OperationResultDocument, asked: Operation) -> OperationResult:
    put, get, delete, list_, txn = found.put, found.get, found.delete, found.list, found.txn
    match asked:
        case Put() | LeasedPut() if put:
            return PutResult(put.revision, put.version)
        case Get(key=key):
            return get.found if get else KeyState(key, None)
        case List() if list_:
            return ListedKeys([record.found for record in list_.records], list_.more)
        case Transact() if txn:
            return _results(txn, asked)
        case Delete() if delete:
            if not (delete.version and delete.deleted_revision):
                return NotFound(delete.revision)
            return DeleteResult(delete.revision, delete.version, delete.deleted_revision)
        case DeleteSpan() if delete:
            return DeleteSpanResult(delete.revision, delete.deleted)
        case _:
            raise ValueError(f"{asked} was answered with {found}")
