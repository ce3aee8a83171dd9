"""`/kv/{key}`: GET, HEAD, PUT and DELETE."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    Found,
    LeasedPut,
    NotFound,
    Put,
    PutResult,
    Result,
    SpanDeleted,
    Transacted,
)
from kvstore.api.json import named
from kvstore.api.queries import Consistency, LockLookup, Lookup, Query
from kvstore.api.results import LockAnswer, NotThen, ReadAnswer
from kvstore.server.http.answer import JSON, Answer, NotModified
from kvstore.server.http.asking import reply_of
from kvstore.server.http.body import read_body
from kvstore.server.http.conditions import (
    conditional,
    conditions_on,
    failed,
    is_unmodified,
    not_guarded,
    refuse_conditions,
)
from kvstore.server.http.head import Plain
from kvstore.server.http.limits import Limits
from kvstore.server.http.lists import Lists
from kvstore.server.http.options import NO_OPTIONS, Options, options_of
from kvstore.server.http.problems import NO_SUCH_KEY, OVERLOADED, RETRY_AFTER, Problem, not_allowed, not_then
from kvstore.server.http.target import decode_key, point_of, span_of
from kvstore.server.http.writes import RequestId, id_of, write
from kvstore.server.service import Replica

ALLOWED = "GET, HEAD, PUT, DELETE"
ALLOWED_FOR_MANY = "GET, HEAD, DELETE"

_VALUE_FIELDS = (
    b"Content-Type: application/octet-stream\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    b'ETag: "%d"\r\nKV-Revision: %d\r\nKV-Create-Revision: %d\r\nKV-Version: %d\r\n'
)


class Keys:
    """Asks a replica for keys; `in_flight` is how many requests are in progress."""

    def __init__(self, replica: Replica, limits: Limits, stopping: Callable[[], bool]) -> None:
        self._replica = replica
        self._lists = Lists(replica, stopping)
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

    async def answer(self, request: web.BaseRequest, escaped_key: str, query: str) -> web.StreamResponse:
        """The answer to a request for a key that came by way of aiohttp. Raises Problem or Refused."""
        with self.counted():
            if escaped_key:
                return await self._answer_for_key(request, escaped_key, query)
            return await self._answer_for_span(request, query)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A request is in progress. Raises Problem when there are too many."""
        self.in_flight += 1
        try:
            self.refuse_too_many()
            yield
        finally:
            self.in_flight -= 1

    async def _answer_for_key(self, request: web.BaseRequest, escaped_key: str, query: str) -> Answer:
        method = request.method
        if method in ("GET", "HEAD"):
            key, (consistency, revision) = decode_key(escaped_key), point_of(query)
            asked: Query = key if revision is None else Lookup(key, revision)
            read = await reply_of(partial(self._replica.read, asked, consistency))
            if isinstance(read, NotThen):
                raise not_then(read, revision or 0, consistency)
            if read.record is not None and is_unmodified(request.headers, read.record):
                return NotModified(b'ETag: "%d"\r\nCache-Control: no-store\r\n' % read.record.revision)
            return get_answer(read, consistency)
        if method not in ("PUT", "DELETE"):
            raise not_allowed(method, ALLOWED)
        options = options_of(query, Put if method == "PUT" else Delete)
        key = decode_key(escaped_key)
        compares = conditions_on(key, request.headers)
        guards = [options.guard] if options.guard is not None else []
        if method == "DELETE":
            request_id = id_of(request, b"")
            return _delete_answer(key, await self._write(Delete(key), compares, guards, request_id))
        value = await read_body(request, self._limits)
        result = await self._write(options.put(key, value), compares, guards, id_of(request, value))
        return put_answer(key, result, options)

    async def _write(
        self,
        command: Put | LeasedPut | Delete,
        compares: list[Compare],
        guards: list[Compare],
        request_id: RequestId | None,
    ) -> Result:
        """What `command` gave. Raises Problem when the conditions do not hold."""
        result = await write(self._replica, conditional(command, [*guards, *compares]), request_id)
        if not isinstance(result, Transacted):
            return result
        first = result.results[0]
        if not isinstance(first, Found):
            return first
        for guard in guards:
            await self._check(guard)
        raise failed(first.record)

    async def _check(self, guard: Compare) -> None:
        """Raises Problem when it is this condition that does not hold: what has failed it was applied here, and no
        fence comes back."""
        if not isinstance(guard.on, bytes):
            raise TypeError(f"a lock is not named {guard.on!r}")
        lock = await reply_of(partial(self._replica.read, LockLookup(guard.on), Consistency.STALE))
        holder = lock.places[0].fence if isinstance(lock, LockAnswer) and lock.places else 0
        if holder != guard.operand:
            raise not_guarded(guard.on, holder)

    async def _answer_for_span(self, request: web.BaseRequest, query: str) -> web.StreamResponse:
        if request.method in ("GET", "HEAD"):
            return await self._lists.answer(request, query)
        if request.method != "DELETE":
            raise not_allowed(request.method, ALLOWED_FOR_MANY, "A key has 1 byte at least, as in /kv/my-key.")
        span = span_of(query)
        refuse_conditions(request.headers)
        result = await write(self._replica, DeleteSpan(span), id_of(request, b""))
        if not isinstance(result, SpanDeleted):
            raise TypeError(f"a deletion was answered with {result!r}")
        return Answer(200, JSON, orjson.dumps({"revision": result.revision, "deleted": result.deleted}) + b"\n")


def put_answer(key: bytes, result: Result, options: Options = NO_OPTIONS) -> Answer:
    """To the PUT of `key`."""
    if not isinstance(result, PutResult):
        raise TypeError(f"a put was answered with {result!r}")
    document = {**named(key), "revision": result.revision, "version": result.version}
    if options.lease or options.ttl_ms:
        document["lease"] = options.lease or result.revision  # one of its own is named by the revision it is granted in
    fields = JSON + b'ETag: "%d"\r\n' % result.revision
    return Answer(201 if result.version == 1 else 200, fields, orjson.dumps(document) + b"\n")


def get_answer(read: ReadAnswer, consistency: Consistency) -> Answer:
    """To a GET or HEAD. Raises Problem when the key is absent."""
    staleness = _staleness(read) if consistency is Consistency.STALE else b""
    record = read.record
    if record is None:
        raise Problem(NO_SUCH_KEY, "Nothing is stored under this key. PUT it to create it.", fields=staleness)
    fields = _VALUE_FIELDS % (record.revision, record.revision, record.create_revision, record.version)
    if read.lease:
        fields += b"KV-Lease: %d\r\n" % read.lease
    return Answer(200, fields + staleness, record.value)


def _delete_answer(key: bytes, result: Result) -> Answer:
    if isinstance(result, NotFound):
        raise Problem(NO_SUCH_KEY, "There was nothing to delete. PUT the key to create it.")
    if not isinstance(result, DeleteResult):
        raise TypeError(f"a delete was answered with {result!r}")
    document = {
        **named(key),
        "revision": result.revision,
        "deleted_revision": result.deleted_revision,
        "version": result.version,
    }
    return Answer(200, JSON, orjson.dumps(document) + b"\n")


def _staleness(read: ReadAnswer) -> bytes:
    fields = b"KV-Applied-Slot: %d\r\nKV-Applied-Revision: %d\r\n" % (read.applied, read.revision)
    return fields if read.age_ms is None else fields + b"KV-Age-Ms: %d\r\n" % round(read.age_ms)
