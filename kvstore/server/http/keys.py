"""`/kv/{key}`: GET, HEAD, PUT and DELETE. `/kv/?prefix=...`: GET, HEAD and DELETE of many keys."""

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import UNSET

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpan,
    DeleteSpanResult,
    KeyState,
    NotFound,
    Put,
    PutResult,
    Result,
    TransactResult,
)
from kvstore.api.json.documents import KeyDeletedDocument, KeyPutDocument, RangeDeletedDocument, text_or_base64
from kvstore.api.queries import Consistency, Lookup, Query
from kvstore.api.results import ReadAnswer, RevisionUnavailable
from kvstore.server.http.calls import ReplicaCall, TaskCall
from kvstore.server.http.conditions import (
    Conditions,
    conditional,
    conditions_on,
    is_unmodified,
    lock_lost,
    precondition_failed,
    refuse_conditions,
)
from kvstore.server.http.lists import KeyListHandlers
from kvstore.server.http.problems import NO_SUCH_KEY, Problem, not_allowed, revision_unavailable
from kvstore.server.http.query_parameters import parse_key_deletion, parse_key_read
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_target import decode_key
from kvstore.server.http.response import HttpResponse, NotModified, json_response
from kvstore.server.http.write_options import NO_OPTIONS, WriteOptions, options_of
from kvstore.server.http.writes import IdempotencyKey, once, refuse_result
from kvstore.server.service import ReplicaService

PATH = "/kv/"
ALLOWED = "GET, HEAD, PUT, DELETE"
ALLOWED_FOR_MANY = "GET, HEAD, DELETE"

_VALUE_FIELDS = (
    b"Content-Type: application/octet-stream\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    b'ETag: "%d"\r\nKV-Revision: %d\r\nKV-Create-Revision: %d\r\nKV-Version: %d\r\n'
)


class KeyHandlers:
    """Handlers of requests for keys."""

    def __init__(self, replica: ReplicaService, lists: KeyListHandlers) -> None:
        self._replica = replica
        self._lists = lists

    def route(self, request: HttpRequest, path: str, query: str) -> ReplicaCall | TaskCall:
        """Return the call of a request. Raises Problem."""
        escaped_key, method = path[len(PATH) :], request.method
        if not escaped_key:
            return self._route_many(request, query)
        if method in ("GET", "HEAD"):
            return KeyReadCall(self._replica, request, escaped_key, query)
        if method in ("PUT", "DELETE"):
            return KeyWriteCall(self._replica, request, escaped_key, query)
        raise not_allowed(method, ALLOWED)

    def _route_many(self, request: HttpRequest, query: str) -> ReplicaCall | TaskCall:
        if request.method in ("GET", "HEAD"):
            return TaskCall(partial(self._lists.handle, request, query), takes_body=False)
        if request.method == "DELETE":
            return RangeDeleteCall(self._replica, request, query)
        raise not_allowed(request.method, ALLOWED_FOR_MANY, "A key has at least 1 byte, as in /kv/my-key.")


class KeyReadCall:
    """A GET or HEAD of a key."""

    __slots__ = ("_consistency", "_key", "_replica", "_request", "_revision")
    takes_body = False

    def __init__(self, replica: ReplicaService, request: HttpRequest, escaped_key: str, query: str) -> None:
        self._replica = replica
        self._request = request
        self._key = decode_key(escaped_key)
        self._consistency, self._revision = parse_key_read(query)

    def ask(self, reply: Callable[[Any], None]) -> None:
        """See ReplicaCall."""
        key, revision = self._key, self._revision
        query: Query = key if revision is None else Lookup(key, revision)
        self._replica.read(query, self._consistency, reply)

    def response_to(self, reply: ReadAnswer | RevisionUnavailable) -> HttpResponse:
        """See ReplicaCall."""
        if isinstance(reply, RevisionUnavailable):
            raise revision_unavailable(reply, self._revision or 0, self._consistency)
        staleness = _staleness(reply) if self._consistency is Consistency.STALE else b""
        record = reply.record
        if record is None:
            raise Problem(NO_SUCH_KEY, "The key does not exist. PUT it to create it.", fields=staleness)
        if is_unmodified(self._request, record):
            return NotModified(b'ETag: "%d"\r\nCache-Control: no-store\r\n' % record.revision + staleness)
        fields = _VALUE_FIELDS % (record.revision, record.revision, record.create_revision, record.version)
        if reply.lease:
            fields += b"KV-Lease: %d\r\n" % reply.lease
        return HttpResponse(200, fields + staleness, record.value)


class KeyWriteCall:
    """A PUT or DELETE of a key."""

    __slots__ = ("_conditions", "_idempotency_key", "_key", "_options", "_replica", "_request", "takes_body")

    def __init__(self, replica: ReplicaService, request: HttpRequest, escaped_key: str, query: str) -> None:
        self._replica = replica
        self._request = request
        self.takes_body = request.method == "PUT"
        self._options: WriteOptions = options_of(query, Put if self.takes_body else Delete) if query else NO_OPTIONS
        self._key = decode_key(escaped_key)
        self._conditions = conditions_on(self._key, request)
        self._idempotency_key = IdempotencyKey.of(request)

    def ask(self, reply: Callable[[Any], None]) -> None:
        """See ReplicaCall."""
        key, options, conditions, body = self._key, self._options, self._conditions, self._request.body
        write = options.put(key, body) if self.takes_body else Delete(key)
        if options.guard is not None:
            required, revisions = conditions or Conditions([], [])
            conditions = Conditions([options.guard, *required], revisions)
        command = conditional(write, conditions) if conditions is not None else write
        self._replica.write(once(command, self._idempotency_key, self._request), reply)

    def response_to(self, reply: Result) -> HttpResponse:
        """See ReplicaCall."""
        result = self._done(reply) if isinstance(reply, TransactResult) else reply
        if isinstance(result, PutResult):
            return self._put_response(result)
        if isinstance(result, DeleteResult):
            return self._delete_response(result)
        if isinstance(result, NotFound):
            raise Problem(NO_SUCH_KEY, "The key does not exist: there was nothing to delete.")
        refuse_result(result)
        raise TypeError(f"a {self._request.method} was answered with {result!r}")

    def _done(self, transacted: TransactResult) -> Result:
        """Return the result of a write whose conditions hold. Raises Problem when one does not."""
        result = transacted.results[0]
        if isinstance(result, TransactResult):
            return self._done(result)
        if not isinstance(result, KeyState):
            return result
        guard = self._options.guard
        if guard is not None:
            self._refuse_lost_lock(guard)
        raise precondition_failed(result.record)

    def _refuse_lost_lock(self, guard: Compare) -> None:
        """Raise Problem if it is this condition that does not hold: the write was applied here, and no fence comes
        back."""
        if not isinstance(guard.on, bytes):
            raise TypeError(f"a lock is not named {guard.on!r}")
        holder = next(iter(self._replica.lease_index.locks.get(guard.on, ())), 0)
        if holder != guard.operand:
            raise lock_lost(guard.on, holder)

    def _put_response(self, result: PutResult) -> HttpResponse:
        options = self._options
        key, key_base64 = text_or_base64(self._key)
        # A lease of the key's own is named by the revision that it is granted in.
        lease = UNSET if options is NO_OPTIONS else options.lease or (result.revision if options.ttl_ms else UNSET)
        document = KeyPutDocument(
            key=key, key_base64=key_base64, revision=result.revision, version=result.version, lease=lease
        )
        return json_response(201 if result.version == 1 else 200, document, b'ETag: "%d"\r\n' % result.revision)

    def _delete_response(self, result: DeleteResult) -> HttpResponse:
        key, key_base64 = text_or_base64(self._key)
        document = KeyDeletedDocument(
            key=key,
            key_base64=key_base64,
            revision=result.revision,
            deleted_revision=result.deleted_revision,
            version=result.version,
        )
        return json_response(200, document)


class RangeDeleteCall:
    """A DELETE of many keys."""

    __slots__ = ("_command", "_idempotency_key", "_replica", "_request")
    takes_body = False

    def __init__(self, replica: ReplicaService, request: HttpRequest, query: str) -> None:
        self._replica = replica
        self._request = request
        span, limit = parse_key_deletion(query)
        self._command = DeleteSpan(span, limit or 0)
        refuse_conditions(request)
        self._idempotency_key = IdempotencyKey.of(request)

    def ask(self, reply: Callable[[Any], None]) -> None:
        """See ReplicaCall."""
        self._replica.write(once(self._command, self._idempotency_key, self._request), reply)

    def response_to(self, reply: Result) -> HttpResponse:
        """See ReplicaCall."""
        refuse_result(reply)
        if not isinstance(reply, DeleteSpanResult):
            raise TypeError(f"a deletion was answered with {reply!r}")
        more = reply.more if self._command.limit else UNSET
        return json_response(200, RangeDeletedDocument(revision=reply.revision, deleted=reply.deleted, more=more))


def _staleness(read: ReadAnswer) -> bytes:
    fields = b"KV-Applied-Slot: %d\r\nKV-Applied-Revision: %d\r\n" % (read.applied, read.revision)
    return fields if read.age_ms is None else fields + b"KV-Age-Ms: %d\r\n" % round(read.age_ms)
