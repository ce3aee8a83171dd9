"""`/kv/{key}`: GET, HEAD, PUT and DELETE."""

from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from kvstore.commands import Delete, DeleteResult, NotFound, Put, PutResult, Result
from kvstore.http.answer import Answer
from kvstore.http.asking import reply_of
from kvstore.http.body import read_body
from kvstore.http.head import Plain
from kvstore.http.limits import Limits
from kvstore.http.problems import NO_SUCH_KEY, OVERLOADED, RETRY_AFTER, UNSUPPORTED, Problem, not_allowed
from kvstore.http.target import consistency_of, decode_key, no_parameters
from kvstore.requests import Consistency, ReadAnswer, Replica

ALLOWED = "GET, HEAD, PUT, DELETE"

_CONDITIONS = ("If-Match", "If-None-Match", "If-Unmodified-Since", "Content-Range")
"""Headers that change what a write means: to ignore one would do a write that its sender did not ask for."""

_VALUE_FIELDS = (
    b"Content-Type: application/octet-stream\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    b'ETag: "%d"\r\nKV-Revision: %d\r\nKV-Create-Revision: %d\r\nKV-Version: %d\r\n'
)
_JSON_FIELDS = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"


class Keys:
    """Asks a replica for keys; `in_flight` is how many requests are in progress."""

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._limits = limits
        self.in_flight = 0

    def refuse_too_many(self) -> None:
        """Asked once the request counts. Raises Problem."""
        if self.in_flight > self._limits.max_in_flight:
            detail = f"This replica takes {self._limits.max_in_flight} requests at once. Try again more slowly."
            raise Problem(OVERLOADED, detail, fields=RETRY_AFTER)

    def ask(self, plain: Plain, reply: Callable[[Any], None]) -> None:
        """Hand a request that came the short way to the replica; `reply` gets what `get_answer` or `put_answer` takes,
        or Refused."""
        if plain.value is None:
            self._replica.read(plain.key, plain.consistency, reply)
        else:
            self._replica.write(Put(plain.key, plain.value), reply)

    async def answer(self, request: web.BaseRequest, escaped_key: str, query: str) -> Answer:
        """The answer to a request for a key that came by way of aiohttp. Raises Problem or Refused."""
        self.in_flight += 1
        try:
            self.refuse_too_many()
            method = request.method
            if method in ("GET", "HEAD"):
                key, consistency = decode_key(escaped_key), consistency_of(query)
                return get_answer(await reply_of(partial(self._replica.read, key, consistency)), consistency)
            if method not in ("PUT", "DELETE"):
                raise not_allowed(method, ALLOWED)
            _refuse_conditions(request)
            no_parameters(query)
            key = decode_key(escaped_key)
            if method == "DELETE":
                return _delete_answer(key, await reply_of(partial(self._replica.write, Delete(key))))
            value = await read_body(request, self._limits)
            return put_answer(key, await reply_of(partial(self._replica.write, Put(key, value))))
        finally:
            self.in_flight -= 1


def put_answer(key: bytes, result: Result) -> Answer:
    """To the PUT of `key`."""
    if not isinstance(result, PutResult):
        raise TypeError(f"a put was answered with {result!r}")
    document = {**_name(key), "revision": result.revision, "version": result.version}
    fields = _JSON_FIELDS + b'ETag: "%d"\r\n' % result.revision
    return Answer(201 if result.version == 1 else 200, fields, orjson.dumps(document) + b"\n")


def get_answer(read: ReadAnswer, consistency: Consistency) -> Answer:
    """To a GET or HEAD. Raises Problem when the key is absent."""
    staleness = _staleness(read) if consistency is Consistency.STALE else b""
    record = read.record
    if record is None:
        raise Problem(NO_SUCH_KEY, "Nothing is stored under this key. PUT it to create it.", fields=staleness)
    fields = _VALUE_FIELDS % (record.revision, record.revision, record.create_revision, record.version)
    return Answer(200, fields + staleness, record.value)


def _delete_answer(key: bytes, result: Result) -> Answer:
    if isinstance(result, NotFound):
        raise Problem(NO_SUCH_KEY, "There was nothing to delete. PUT the key to create it.")
    if not isinstance(result, DeleteResult):
        raise TypeError(f"a delete was answered with {result!r}")
    document = {
        **_name(key),
        "revision": result.revision,
        "deleted_revision": result.deleted_revision,
        "version": result.version,
    }
    return Answer(200, _JSON_FIELDS, orjson.dumps(document) + b"\n")


def _refuse_conditions(request: web.BaseRequest) -> None:
    for name in _CONDITIONS:
        if name in request.headers:
            raise Problem(UNSUPPORTED, f"Writes take no {name}. Leave the header out; the write is unconditional then.")


def _name(key: bytes) -> dict[str, str | int]:
    try:
        return {"key": key.decode()}
    except UnicodeDecodeError:
        return {"key_base64": b64encode(key).decode()}


def _staleness(read: ReadAnswer) -> bytes:
    fields = b"KV-Applied-Slot: %d\r\nKV-Applied-Revision: %d\r\n" % (read.applied, read.revision)
    return fields if read.age_ms is None else fields + b"KV-Age-Ms: %d\r\n" % round(read.age_ms)
