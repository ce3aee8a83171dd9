"""`POST /txn`: many keys at once, in JSON.

    {"compare": [{"key": "a", "revision": 7}, {"prefix": "b/", "exists": false}],
     "then": [{"put": {"key": "a", "value": "1"}}, {"delete": {"prefix": "c/"}}],
     "else": [{"get": {"key": "a"}}, {"list": {"prefix": "c/", "limit": 10}}, {"txn": {...}}]}

Wherever bytes stand as text there is a field of the same name with `_base64` behind it for bytes that are none.
"""

from functools import partial
from typing import Any

import msgspec
import orjson
from aiohttp import web

from kvstore.commands import (
    Compare,
    Delete,
    DeleteSpan,
    Get,
    List,
    Operation,
    Put,
    Relation,
    Target,
    TooManyChanges,
    Transact,
    Transacted,
)
from kvstore.http.answer import Answer
from kvstore.http.asking import reply_of
from kvstore.http.body import read_body
from kvstore.http.documents import transacted_document
from kvstore.http.limits import Limits
from kvstore.http.problems import INVALID_TRANSACTION, Problem, not_allowed, too_many_changes
from kvstore.http.target import MAX_KEY_BYTES, no_parameters
from kvstore.ranges import Span, starting_with
from kvstore.requests import Replica

PATH = "/txn"
MOST_OPERATIONS = 1000
MOST_LISTED = 1000
DEEPEST = 8

_FIELDS = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"


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


class _List(_Keys, frozen=True):
    limit: int = 100


class _Numbers(_Json, frozen=True):
    eq: int | None = None
    ne: int | None = None
    lt: int | None = None
    gt: int | None = None


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
    version: int | _Numbers | None = None
    revision: int | _Numbers | None = None
    create_revision: int | _Numbers | None = None


class _Operation(_Json, frozen=True):
    """One of these."""

    put: _Put | None = None
    get: _Key | None = None
    delete: _Keys | None = None
    list: _List | None = None
    txn: "_Transaction | None" = None


class _Transaction(_Json, frozen=True, rename={"otherwise": "else"}):
    compare: list[_Compare] = []
    then: list[_Operation] = []
    otherwise: list[_Operation] = []


_decode = msgspec.json.Decoder(_Transaction).decode


class Transactions:
    """Hands transactions to a replica."""

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._limits = limits

    async def answer(self, request: web.BaseRequest, query: str) -> Answer:
        """The answer to a request for `PATH`. Raises Problem or Refused."""
        if request.method != "POST":
            raise not_allowed(request.method, "POST")
        no_parameters(query)
        command = transaction_of(await read_body(request, self._limits))
        result = await reply_of(partial(self._replica.write, command))
        if isinstance(result, TooManyChanges):
            raise too_many_changes()
        if not isinstance(result, Transacted):
            raise TypeError(f"a transaction was answered with {result!r}")
        return Answer(200, _FIELDS, orjson.dumps(transacted_document(result)) + b"\n")


def transaction_of(body: bytes) -> Transact:
    """The command that a body asks for. Raises Problem."""
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"The body is not that of a transaction: {error}.") from None
    return _transact(found, "$", 1)


def _transact(found: _Transaction, where: str, depth: int) -> Transact:
    if depth > DEEPEST:
        raise _invalid(f"{where} is nested more than {DEEPEST} deep. Send it as a transaction of its own.")
    command = Transact(
        [
            compare
            for number, each in enumerate(found.compare)
            for compare in _compares(each, f"{where}.compare[{number}]")
        ],
        [_operation(each, f"{where}.then[{number}]", depth) for number, each in enumerate(found.then)],
        [_operation(each, f"{where}.else[{number}]", depth) for number, each in enumerate(found.otherwise)],
    )
    if depth == 1 and _size(command) > MOST_OPERATIONS:
        raise _invalid(
            f"It has {_size(command)} compares and operations, nested ones included. Send up to {MOST_OPERATIONS}."
        )
    return command


def _size(command: Operation) -> int:
    """The most that one run of it looks at."""
    if not isinstance(command, Transact):
        return 1
    return len(command.compares) + max(sum(map(_size, branch)) for branch in (command.then, command.otherwise))


def _operation(found: _Operation, where: str, depth: int) -> Operation:
    given = [name for name in found.__struct_fields__ if getattr(found, name) is not None]
    if len(given) != 1:
        raise _invalid(f"{where} is not one of put, get, delete, list, txn.")
    where = f"{where}.{given[0]}"
    if found.put is not None:
        value = _bytes(found.put, "value", where)
        if value is None:
            raise _invalid(f"{where} has no value.")
        return Put(_key(found.put, where), value)
    if found.get is not None:
        return Get(_key(found.get, where))
    if found.delete is not None:
        keys = _keys(found.delete, where)
        return Delete(keys) if isinstance(keys, bytes) else DeleteSpan(keys)
    if found.list is not None:
        return _list(found.list, where)
    return _transact(found.txn or _Transaction(), where, depth + 1)


def _list(found: _List, where: str) -> List:
    span = _keys(found, where)
    if isinstance(span, bytes):
        raise _invalid(f"{where} has a key. List by prefix, or from start to end; get looks one key up.")
    if not 1 <= found.limit <= MOST_LISTED:
        raise _invalid(f"{where}.limit is {found.limit}. Use 1 to {MOST_LISTED}.")
    return List(span, found.limit)


def _compares(found: _Compare, where: str) -> list[Compare]:
    on = _keys(found, where)
    compares = [
        Compare(on, target, Relation(name), operand)
        for target, given in (
            (Target.VALUE, found.value),
            (Target.VALUE, found.value_base64),
            (Target.VERSION, found.version),
            (Target.REVISION, found.revision),
            (Target.CREATE_REVISION, found.create_revision),
        )
        for name, operand in _relations(given)
    ]
    if found.exists is not None:
        compares.append(Compare(on, Target.EXISTS, Relation.EQUAL, int(found.exists)))
    if not compares:
        raise _invalid(f"{where} compares nothing. Give exists, value, version, revision or create_revision.")
    return compares


def _relations(given: Any) -> list[tuple[str, int | bytes]]:
    if given is None:
        return []
    if not isinstance(given, msgspec.Struct):
        return [("eq", _operand(given))]
    named = [(name, getattr(given, name)) for name in given.__struct_fields__]
    return [(name, _operand(operand)) for name, operand in named if operand is not None]


def _operand(given: int | str | bytes) -> int | bytes:
    return given.encode() if isinstance(given, str) else given


def _key(found: _Key, where: str) -> bytes:
    key = _bytes(found, "key", where)
    if key is None:
        raise _invalid(f"{where} has no key.")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise _invalid(f"{where}.key has {len(key)} bytes. Use 1 to {MAX_KEY_BYTES}.")
    return key


def _keys(found: _Keys, where: str) -> bytes | Span:
    key, prefix, start, end = (_bytes(found, name, where) for name in ("key", "prefix", "start", "end"))
    kinds = [key is not None, prefix is not None, start is not None or end is not None]
    if sum(kinds) != 1:
        raise _invalid(f"{where} has to name its keys in one way: by key, by prefix, or by start and end.")
    if key is not None:
        return _key(found, where)
    return starting_with(prefix) if prefix is not None else Span(start or b"", end)


def _bytes(found: _Json, name: str, where: str) -> bytes | None:
    text, blob = getattr(found, name), getattr(found, f"{name}_base64")
    if text is not None and blob is not None:
        raise _invalid(f"{where} has {name} and {name}_base64. Give one of them.")
    if blob is not None:
        return bytes(blob)
    return text.encode() if text is not None else None


def _invalid(detail: str) -> Problem:
    return Problem(INVALID_TRANSACTION, detail)
