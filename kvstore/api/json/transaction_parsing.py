"""From the body of `POST /txn` to the command that it asks for."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteSpan,
    Get,
    LeasedPut,
    List,
    Operation,
    Put,
    Relation,
    Target,
    Transact,
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
    TextRelations,
    TransactionRequest,
)
from kvstore.api.json.unique_names import RepeatedNameError, refuse_repeated_names
from kvstore.api.key_range import Span, starting_with
from kvstore.api.limits import MAX_DEPTH, MAX_KEY_BYTES, MAX_LISTED, MAX_OPERATIONS, RESERVED_KEY

T = TypeVar("T")
U = TypeVar("U")

_decode = msgspec.json.Decoder(TransactionRequest).decode


class InvalidTransactionError(ValueError):
    """The body does not ask for a transaction. The message says where and why.

    `where` is put together on the way out: most bodies have no need of it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = "$"

    def __str__(self) -> str:
        return f"{self.where}{self.what}"


def transaction_of(body: bytes) -> Transact:
    """Return the command that a body asks for. Raises InvalidTransactionError."""
    try:
        request = _decode(body)
        refuse_repeated_names(body)
        return _transact(request, depth=1)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RepeatedNameError) as error:
        invalid = InvalidTransactionError(f"The body is not that of a transaction: {error}.")
        invalid.where = ""
        raise invalid from None


def _size(branch: Sequence[Operation]) -> int:
    """Return the number of operations and compares, nested ones included."""
    nested = [each for each in branch if isinstance(each, Transact)]
    return len(branch) + sum(len(each.compares) + _size(each.then) + _size(each.otherwise) for each in nested)


def _transact(found: TransactionRequest, depth: int) -> Transact:
    if depth > MAX_DEPTH:
        raise InvalidTransactionError(f" is nested more than {MAX_DEPTH} deep. Send it as a transaction of its own.")
    operation = partial(_operation, depth=depth)
    command = Transact(
        [compare for compares in _each("compare", found.compare, _compares) for compare in compares],
        _each("then", found.then, operation),
        _each("else", found.otherwise, operation),
    )
    if depth == 1:
        size = len(command.compares) + max(_size(command.then), _size(command.otherwise))
        if size > MAX_OPERATIONS:
            raise InvalidTransactionError(
                f" has {size} compares and operations, nested ones included. Send at most {MAX_OPERATIONS}."
            )
    return command


def _each(name: str, parts: Sequence[T], make: Callable[[T], U]) -> list[U]:
    """Return all parts made, or raise with the place of the first one that cannot be."""
    made: list[U] = []
    try:
        made += map(make, parts)  # when it fails, what was made before is there
    except InvalidTransactionError as error:
        error.where = f"$.{name}[{len(made)}]{error.where[1:]}"
        raise
    return made


def _operation(found: OperationRequest, depth: int) -> Operation:
    put, get, delete, list_, txn = found.put, found.get, found.delete, found.list, found.txn
    if [put, get, delete, list_, txn].count(UNSET) != 4:
        raise InvalidTransactionError(" is not one of put, get, delete, list, txn.")
    name = "put"
    try:
        if put is not UNSET:
            return _put(put)
        if get is not UNSET:
            name = "get"
            return Get(_key(get))
        if delete is not UNSET:
            name = "delete"
            keys = _keys(delete)
            return Delete(keys) if isinstance(keys, bytes) else DeleteSpan(keys)
        if list_ is not UNSET:
            name = "list"
            return _list(list_)
        name = "txn"
        return _transact(txn or TransactionRequest(), depth + 1)
    except InvalidTransactionError as error:
        error.where = f"$.{name}{error.where[1:]}"
        raise


def _put(found: PutRequest) -> Put | LeasedPut:
    value = _bytes("value", found.value, found.value_base64)
    if value is None:
        raise InvalidTransactionError(" has no value.")
    return Put(_key(found), value) if found.lease is UNSET else LeasedPut(_key(found), value, found.lease)


def _list(found: ListRequest) -> List:
    span = _keys(found)
    if isinstance(span, bytes):
        raise InvalidTransactionError(" has a key. List by prefix, or from start to end; get reads one key.")
    if not 1 <= found.limit <= MAX_LISTED:
        raise InvalidTransactionError(f".limit is {found.limit}. Use 1 to {MAX_LISTED}.")
    return List(span, found.limit)


def _compares(found: CompareRequest) -> list[Compare]:
    if found.lock is not UNSET or found.lock_base64 is not UNSET or found.fence is not UNSET:
        return [_guard(found)]
    on = _keys(found)
    compares = [
        Compare(on, target, Relation(name), operand)
        for target, given in (
            (Target.VALUE, found.value),
            (Target.VALUE, found.value_base64),
            (Target.VERSION, found.version),
            (Target.REVISION, found.revision),
            (Target.CREATE_REVISION, found.create_revision),
            (Target.LEASE, found.lease),
        )
        for name, operand in _relations(given)
    ]
    if found.exists is not UNSET:
        compares.append(Compare(on, Target.EXISTS, Relation.EQUAL, int(found.exists)))
    if not compares:
        raise InvalidTransactionError(
            " compares nothing. Give exists, value, version, revision, create_revision or lease."
        )
    return compares


def _guard(found: CompareRequest) -> Compare:
    """Return the condition that a fencing token holds a lock."""
    name = _bytes("lock", found.lock, found.lock_base64)
    if name is None or found.fence is UNSET:
        raise InvalidTransactionError(" has to have lock and fence, or none of them.")
    if CompareRequest(lock=found.lock, lock_base64=found.lock_base64, fence=found.fence) != found:
        raise InvalidTransactionError(" has more than lock and fence. Use another compare for the other conditions.")
    if not 1 <= len(name) <= MAX_KEY_BYTES:
        raise InvalidTransactionError(f".lock has {len(name)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    return Compare(name, Target.FENCING_TOKEN, Relation.EQUAL, found.fence)


def _relations(
    given: int | str | bytes | NumberRelations | TextRelations | BytesRelations | UnsetType,
) -> list[tuple[str, int | bytes]]:
    if given is UNSET:
        return []
    if not isinstance(given, msgspec.Struct):
        return [("eq", _operand(given))]
    named = [(name, getattr(given, name)) for name in given.__struct_fields__]
    return [(name, _operand(operand)) for name, operand in named if operand is not UNSET]


def _operand(given: int | str | bytes) -> int | bytes:
    return given.encode() if isinstance(given, str) else given


def _key(found: KeyRequest) -> bytes:
    key = _bytes("key", found.key, found.key_base64)
    if key is None:
        raise InvalidTransactionError(" has no key.")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise InvalidTransactionError(f".key has {len(key)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    if key.startswith(b"\0"):
        raise InvalidTransactionError(f".key cannot be used. {RESERVED_KEY}")
    return key


def _keys(found: KeysRequest) -> bytes | Span:
    named = found.key is not UNSET or found.key_base64 is not UNSET
    prefix = _bytes("prefix", found.prefix, found.prefix_base64)
    start, end = _bytes("start", found.start, found.start_base64), _bytes("end", found.end, found.end_base64)
    if named + (prefix is not None) + (start is not None or end is not None) != 1:
        raise InvalidTransactionError(" has to name its keys in one way: by key, by prefix, or by start and end.")
    if named:
        return _key(found)
    return starting_with(prefix) if prefix is not None else Span(start or b"", end)


def _bytes(name: str, text: str | UnsetType, blob: bytes | UnsetType) -> bytes | None:
    if blob is UNSET:
        return text.encode() if text is not UNSET else None
    if text is not UNSET:
        raise InvalidTransactionError(f" has {name} and {name}_base64. Give one of them.")
    return blob
