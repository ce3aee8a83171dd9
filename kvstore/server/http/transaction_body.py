"""What the body of `POST /txn` asks for.

    {"compare": [{"key": "a", "revision": 7}, {"prefix": "b/", "exists": false}],
     "then": [{"put": {"key": "a", "value": "1", "lease": 5}}, {"delete": {"prefix": "c/"}}],
     "else": [{"get": {"key": "a"}}, {"list": {"prefix": "c/", "limit": 10}}, {"txn": {...}}]}

Wherever bytes stand as text there is a field of the same name with `_base64` behind it for bytes that are none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec

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
from kvstore.api.key_range import Span, starting_with
from kvstore.server.http.problems import INVALID_TRANSACTION, Problem
from kvstore.server.http.target import MAX_KEY_BYTES, MOST_REVISION, OWN_KEY

T = TypeVar("T")
U = TypeVar("U")

MOST_OPERATIONS = 1000
MOST_LISTED = 1000
DEEPEST = 8


Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""What a counter is compared with: no greater one would fit into a command."""


LeaseNumber = Annotated[int, msgspec.Meta(ge=1, le=MOST_REVISION)]


class _Json(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what a body is made of."""


class _Key(_Json, frozen=True):
    key: str | None = None
    key_base64: bytes | None = None


class _Keys(_Key, frozen=True):
    """A key, or the keys that begin with a prefix, or those from start on and before end."""

    prefix: str | None = None
    prefix_base64: bytes | None = None
    start: str | None = None
    start_base64: bytes | None = None
    end: str | None = None
    end_base64: bytes | None = None


class _Put(_Key, frozen=True):
    value: str | None = None
    value_base64: bytes | None = None
    lease: LeaseNumber | None = None


class _List(_Keys, frozen=True):
    limit: int = 100


class _Numbers(_Json, frozen=True):
    eq: Number | None = None
    ne: Number | None = None
    lt: Number | None = None
    gt: Number | None = None


class _Texts(_Json, frozen=True):
    eq: str | None = None
    ne: str | None = None
    lt: str | None = None
    gt: str | None = None


class _Blobs(_Json, frozen=True):
    eq: bytes | None = None
    ne: bytes | None = None
    lt: bytes | None = None
    gt: bytes | None = None


class _Compare(_Keys, frozen=True):
    exists: bool | None = None
    value: str | _Texts | None = None
    value_base64: bytes | _Blobs | None = None
    version: Number | _Numbers | None = None
    revision: Number | _Numbers | None = None
    create_revision: Number | _Numbers | None = None
    lease: Number | _Numbers | None = None
    lock: str | None = None
    lock_base64: bytes | None = None
    fence: Number | None = None


class _Operation(_Json, frozen=True):
    """One of these."""

    put: _Put | None = None
    get: _Key | None = None
    delete: _Keys | None = None
    list: _List | None = None
    txn: "Transaction | None" = None


class Transaction(_Json, frozen=True, rename={"otherwise": "else"}):
    """What the whole body holds, and what nests in it."""

    compare: list[_Compare] = []
    then: list[_Operation] = []
    otherwise: list[_Operation] = []


_decode = msgspec.json.Decoder(Transaction).decode


class _InvalidError(Exception):
    """What is wrong with some part. `where` is put together on the way out: most bodies have no need of it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = ""


def transaction_of(body: bytes) -> Transact:
    """The command that a body asks for. Raises Problem."""
    try:
        return _transact(_decode(body), depth=1)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(INVALID_TRANSACTION, f"The body is not that of a transaction: {error}.") from None
    except _InvalidError as error:
        raise Problem(INVALID_TRANSACTION, f"${error.where}{error.what}") from None


def _size(branch: Sequence[Operation]) -> int:
    """How much there is in it, all that is nested included."""
    nested = [each for each in branch if isinstance(each, Transact)]
    return len(branch) + sum(len(each.compares) + _size(each.then) + _size(each.otherwise) for each in nested)


def _transact(found: Transaction, depth: int) -> Transact:
    if depth > DEEPEST:
        raise _InvalidError(f" is nested more than {DEEPEST} deep. Send it as a transaction of its own.")
    operation = partial(_operation, depth=depth)
    command = Transact(
        [compare for compares in _each("compare", found.compare, _compares) for compare in compares],
        _each("then", found.then, operation),
        _each("else", found.otherwise, operation),
    )
    if depth == 1:
        longer = len(command.compares) + max(_size(command.then), _size(command.otherwise))
        if longer > MOST_OPERATIONS:
            raise _InvalidError(
                f" has {longer} compares and operations, nested ones included. Send up to {MOST_OPERATIONS}."
            )
    return command


def _each(name: str, parts: Sequence[T], make: Callable[[T], U]) -> list[U]:
    """All parts made, or where the first one is that cannot be."""
    made: list[U] = []
    try:
        made += map(make, parts)  # when it fails, what was made before is there
    except _InvalidError as error:
        error.where = f".{name}[{len(made)}]{error.where}"
        raise
    return made


def _operation(found: _Operation, depth: int) -> Operation:
    put, get, delete, list_, txn = found.put, found.get, found.delete, found.list, found.txn
    if [put, get, delete, list_, txn].count(None) != 4:
        raise _InvalidError(" is not one of put, get, delete, list, txn.")
    name = "put"
    try:
        if put is not None:
            return _put(put)
        if get is not None:
            name = "get"
            return Get(_key(get))
        if delete is not None:
            name = "delete"
            keys = _keys(delete)
            return Delete(keys) if isinstance(keys, bytes) else DeleteSpan(keys)
        if list_ is not None:
            name = "list"
            return _list(list_)
        name = "txn"
        return _transact(txn or Transaction(), depth + 1)
    except _InvalidError as error:
        error.where = f".{name}{error.where}"
        raise


def _put(found: _Put) -> Put | LeasedPut:
    value = _bytes("value", found.value, found.value_base64)
    if value is None:
        raise _InvalidError(" has no value.")
    return Put(_key(found), value) if found.lease is None else LeasedPut(_key(found), value, found.lease)


def _list(found: _List) -> List:
    span = _keys(found)
    if isinstance(span, bytes):
        raise _InvalidError(" has a key. List by prefix, or from start to end; get looks one key up.")
    if not 1 <= found.limit <= MOST_LISTED:
        raise _InvalidError(f".limit is {found.limit}. Use 1 to {MOST_LISTED}.")
    return List(span, found.limit)


def _compares(found: _Compare) -> list[Compare]:
    if found.lock is not None or found.lock_base64 is not None or found.fence is not None:
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
    if found.exists is not None:
        compares.append(Compare(on, Target.EXISTS, Relation.EQUAL, int(found.exists)))
    if not compares:
        raise _InvalidError(" compares nothing. Give exists, value, version, revision, create_revision or lease.")
    return compares


def _guard(found: _Compare) -> Compare:
    """That a fence holds a lock."""
    name = _bytes("lock", found.lock, found.lock_base64)
    if name is None or found.fence is None:
        raise _InvalidError(" has to have lock and fence, or none of them.")
    others = msgspec.structs.asdict(found).items() - {("lock", found.lock), ("lock_base64", found.lock_base64)}
    if any(value is not None for field, value in others if field != "fence"):
        raise _InvalidError(" has more than lock and fence. Put what else is compared into a compare of its own.")
    if not 1 <= len(name) <= MAX_KEY_BYTES:
        raise _InvalidError(f".lock has {len(name)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    return Compare(name, Target.FENCING_TOKEN, Relation.EQUAL, found.fence)


def _relations(given: Any) -> list[tuple[str, int | bytes]]:
    if given is None:
        return []
    if not isinstance(given, msgspec.Struct):
        return [("eq", _operand(given))]
    named = [(name, getattr(given, name)) for name in given.__struct_fields__]
    return [(name, _operand(operand)) for name, operand in named if operand is not None]


def _operand(given: int | str | bytes) -> int | bytes:
    return given.encode() if isinstance(given, str) else given


def _key(found: _Key) -> bytes:
    key = _bytes("key", found.key, found.key_base64)
    if key is None:
        raise _InvalidError(" has no key.")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise _InvalidError(f".key has {len(key)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    if key.startswith(b"\0"):
        raise _InvalidError(f".key cannot be used. {OWN_KEY}")
    return key


def _keys(found: _Keys) -> bytes | Span:
    named = found.key is not None or found.key_base64 is not None
    prefix = _bytes("prefix", found.prefix, found.prefix_base64)
    start, end = _bytes("start", found.start, found.start_base64), _bytes("end", found.end, found.end_base64)
    if named + (prefix is not None) + (start is not None or end is not None) != 1:
        raise _InvalidError(" has to name its keys in one way: by key, by prefix, or by start and end.")
    if named:
        return _key(found)
    return starting_with(prefix) if prefix is not None else Span(start or b"", end)


def _bytes(name: str, text: str | None, blob: bytes | None) -> bytes | None:
    if blob is None:
        return text.encode() if text is not None else None
    if text is not None:
        raise _InvalidError(f" has {name} and {name}_base64. Give one of them.")
    return blob
