"""`/kv/{key}`: GET, HEAD, PUT and DELETE."""

from base64 import b64encode

import orjson
from aiohttp import web

from kvstore.commands import Delete, DeleteResult, NotFound, Put, PutResult
from kvstore.http.answer import Answer
from kvstore.http.body import read_body
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
    """Answers requests for keys out of a replica; `in_flight` is how many are in progress."""

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._limits = limits
        self.in_flight = 0

    async def answer(self, request: web.BaseRequest, escaped_key: str, query: str) -> Answer:
        """The answer to a request for a key. Raises Problem or Refused."""
        if self.in_flight >= self._limits.max_in_flight:
            detail = f"This replica takes {self._limits.max_in_flight} requests at once. Try again more slowly."
            raise Problem(OVERLOADED, detail, fields=RETRY_AFTER)
        self.in_flight += 1
        try:
            method = request.method
            if method in ("GET", "HEAD"):
                return await self._get(decode_key(escaped_key), consistency_of(query))
            if method not in ("PUT", "DELETE"):
                raise not_allowed(method, ALLOWED)
            _refuse_conditions(request)
            no_parameters(query)
            key = decode_key(escaped_key)
            if method == "DELETE":
                return await self._delete(key)
            return await self._put(key, await read_body(request, self._limits))
        finally:
            self.in_flight -= 1

    async def _put(self, key: bytes, value: bytes) -> Answer:
        result = await self._replica.write(Put(key, value))
        if not isinstance(result, PutResult):
            raise TypeError(f"a put was answered with {result!r}")
        document = {**_name(key), "revision": result.revision, "version": result.version}
        fields = _JSON_FIELDS + b'ETag: "%d"\r\n' % result.revision
        return Answer(201 if result.version == 1 else 200, fields, orjson.dumps(document) + b"\n")

    async def _delete(self, key: bytes) -> Answer:
        result = await self._replica.write(Delete(key))
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

    async def _get(self, key: bytes, consistency: Consistency) -> Answer:
        read = await self._replica.read(key, consistency)
        staleness = _staleness(read) if consistency is Consistency.STALE else b""
        record = read.record
        if record is None:
            raise Problem(NO_SUCH_KEY, "Nothing is stored under this key. PUT it to create it.", fields=staleness)
        fields = _VALUE_FIELDS % (record.revision, record.revision, record.create_revision, record.version)
        return Answer(200, fields + staleness, record.value)


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
