"""`/locks/{name}`: locks, which a lease holds until it releases them or ends. Waiting leases form a queue.

The response has a fencing token (`fence`), which grows from one holder to the next. A write can be made conditional on
the token: `PUT /kv/{key}?lock=...&fence=...`, or a compare in `POST /txn`.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from msgspec import UNSET

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    KeepLeaseAlive,
    LockHeld,
    LockNotHeld,
    LockReleased,
    ReleaseLock,
    RevokeLease,
)
from kvstore.api.errors import Refused
from kvstore.api.json.documents import (
    AcquireRequest,
    LockAcquiredDocument,
    LockDocument,
    LockReleasedDocument,
    QueueEntryDocument,
    bytes_of,
    text_or_base64,
)
from kvstore.api.limits import MAX_LOCK_VALUE_BYTES, MAX_REVISION
from kvstore.api.queries import Consistency, LockLookup
from kvstore.api.results import LockAnswer, QueueEntryStatus
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.in_flight import InFlight
from kvstore.server.http.problems import INVALID_LOCK, LOCKED, NOT_HELD, RETRY_AFTER, Problem, not_allowed
from kvstore.server.http.provisional import confirm, give_full_ttl, provisional
from kvstore.server.http.query_parameters import consistency_in, integer_in, parse_query, refuse_parameters
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_body import decode, invalid_body
from kvstore.server.http.request_target import decode_key
from kvstore.server.http.response import HttpResponse, json_response
from kvstore.server.http.writes import IdempotencyKey, no_such_lease, once, write
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService
from kvstore.state_machine.lease_index import LeaseIndex, QueueEntry

PATH = "/locks/"
_ALLOWED = "GET, HEAD, POST, DELETE"
_USAGE = '{"lease": 17}, {"ttl_s": 10} or both, with optional "value" and "wait_s"'


class _Waiter(NamedTuple):
    """A request that waits in the queue of a lock; `called` is set when its lease holds the lock, or left the queue."""

    name: bytes
    fence: int
    called: asyncio.Event

    def is_decided(self, locks: dict[bytes, dict[int, QueueEntry]]) -> bool:
        queue = locks.get(self.name, {})
        return self.fence not in queue or self.fence == next(iter(queue))


class LockHandlers:
    """Handlers that acquire, release and show locks."""

    def __init__(self, replica: ReplicaService, in_flight: InFlight) -> None:
        """`in_flight` counts these requests except while they wait in a queue."""
        self._replica = replica
        self._in_flight = in_flight
        self._seen: LeaseIndex | None = None
        self._moves = 0
        self._waiters: set[_Waiter] = set()
        replica.on_change(self._changed)

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:
        """Return the call of a request for a lock. Raises Problem."""
        name = decode_key(path[len(PATH) :])
        return TaskCall(partial(self._handle, request, name, query), takes_body=request.method == "POST")

    async def _handle(self, request: HttpRequest, name: bytes, query: str) -> HttpResponse:
        match request.method:
            case "GET" | "HEAD":
                return await self._look(name, query)
            case "POST":
                return await self._acquire(request, name, query)
            case "DELETE":
                return await self._release(request, name, query)
            case method:
                raise not_allowed(method, _ALLOWED)

    def end(self) -> None:
        """End all waits: the replica is shutting down."""
        for waiter in self._waiters:
            waiter.called.set()

    async def _look(self, name: bytes, query: str) -> HttpResponse:
        with self._in_flight.counted():
            found = await self._found(name, consistency_in(parse_query(query, ("consistency",))))
        entries = [_document(entry) for entry in found.queue]
        document = LockDocument(
            **_named(name),
            revision=found.revision,
            holder=entries[0] if entries else None,
            waiting=entries[1:],
            more=found.more,
        )
        return json_response(200, document)

    async def _acquire(self, request: HttpRequest, name: bytes, query: str) -> HttpResponse:
        refuse_parameters(query)
        with self._in_flight.counted():
            command, ttl_ms, wait_s = _acquiring(request.body, name)
            key = IdempotencyKey.of(request)
            result = await write(self._replica, once(command, key, request))
        if isinstance(result, LockHeld):
            raise locked(name, result)
        if not isinstance(result, AcquireResult):
            raise TypeError(f"an acquisition was answered with {result!r}")
        revocable = not command.lease and key is None
        held = result.held or await self._wait_in_queue(
            request, name, result, wait_s, renews=ttl_ms > 0, revocable=revocable
        )
        if held and command.lease and ttl_ms:
            await give_full_ttl(self._replica, result.lease, ttl_ms)
        elif held and ttl_ms:
            await confirm(
                self._replica, request.client, result.lease, ttl_ms, waited=not result.held, revocable=revocable
            )
        document = LockAcquiredDocument(**_named(name), lease=result.lease, fence=result.fencing_token, held=held)
        return json_response(200 if held else 202, document)

    async def _wait_in_queue(
        self, request: HttpRequest, name: bytes, entry: AcquireResult, wait_s: float, *, renews: bool, revocable: bool
    ) -> bool:
        """Wait in the queue, and return whether the lease holds the lock. Raises Problem if the lease ends.

        With `renews`, the lease is renewed for as long as the client is connected. A client that closes its connection,
        or its side of it, leaves the queue if the lease is `revocable`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        if not renews:
            return await self._wait(name, entry, deadline)
        while True:
            held = await self._wait(name, entry, min(deadline, loop.time() + self._renewal_interval_s(entry.lease)))
            if request.client.is_gone:
                if revocable:
                    await write(self._replica, RevokeLease(entry.lease))
                return False
            with suppress(Refused):  # a lease lasts for two renewals that fail
                await write(self._replica, KeepLeaseAlive(entry.lease))
            if held or loop.time() >= deadline or self._replica.stopping:
                return held

    def _renewal_interval_s(self, lease: int) -> float:
        found = self._replica.lease_index.leases.get(lease)
        return found.terms.ttl_ms / 3000 if found is not None else 0.0

    async def _wait(self, name: bytes, entry: AcquireResult, deadline: float) -> bool:
        """Wait until `deadline`, and return whether the lease holds the lock. Raises Problem if the lease ends."""
        waiter = _Waiter(name, entry.fencing_token, asyncio.Event())
        if not waiter.is_decided(self._replica.lease_index.locks) and not self._replica.stopping:
            self._waiters.add(waiter)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await waiter.called.wait()
            finally:
                self._waiters.remove(waiter)
        lease_index = self._replica.lease_index
        if entry.fencing_token not in lease_index.locks.get(name, {}):
            raise _given_up(name, entry) if entry.lease in lease_index.leases else no_such_lease(entry.lease)
        return waiter.is_decided(lease_index.locks)

    def _changed(self) -> None:
        """Wake the requests that a change of any queue decides."""
        lease_index = self._replica.lease_index
        if lease_index is not self._seen or lease_index.queue_changes != self._moves:
            self._seen, self._moves = lease_index, lease_index.queue_changes
            for waiter in self._waiters:
                if waiter.is_decided(lease_index.locks):
                    waiter.called.set()

    async def _release(self, request: HttpRequest, name: bytes, query: str) -> HttpResponse:
        lease = integer_in(parse_query(query, ("lease",)), "lease", 1, MAX_REVISION)
        if lease is None:
            raise Problem(
                INVALID_LOCK, "The lease is missing: use ?lease=17, the lease that the response to POST names."
            )
        with self._in_flight.counted():
            result = await write(self._replica, once(ReleaseLock(name, lease), IdempotencyKey.of(request), request))
        if isinstance(result, LockNotHeld):
            detail = f"Lease {lease} neither holds this lock nor waits for it. GET shows who does."
            raise Problem(NOT_HELD, detail)
        if not isinstance(result, LockReleased):
            raise TypeError(f"a release was answered with {result!r}")
        return json_response(200, LockReleasedDocument(**_named(name), revision=result.revision))

    async def _found(self, name: bytes, consistency: Consistency) -> LockAnswer:
        answer = await reply_of(partial(self._replica.read, LockLookup(name), consistency))
        if not isinstance(answer, LockAnswer):
            raise TypeError(f"a lock was answered with {answer!r}")
        return answer


def locked(name: bytes, busy: LockHeld) -> Problem:
    """Return 409 with the holder of the lock."""
    detail = f"Lease {busy.lease} holds the lock, fence {busy.fencing_token}. Try again, or wait with wait_s."
    about = {**_named(name), "holder": QueueEntryDocument(lease=busy.lease, fence=busy.fencing_token)}
    return Problem(LOCKED, detail, fields=RETRY_AFTER, about=about)


def _given_up(name: bytes, entry: AcquireResult) -> Problem:
    detail = f"A DELETE removed lease {entry.lease} from the queue. Send the POST again to enter it again."
    return Problem(NOT_HELD, detail, about=_named(name))


def _acquiring(body: bytes, name: bytes) -> tuple[AcquireLock, int, float]:
    """Return the command, the TTL of its lease once it holds the lock (in milliseconds, 0 to keep the present one), and
    the longest wait. Raises Problem."""
    wanted = decode(body, AcquireRequest, INVALID_LOCK, _USAGE)
    if wanted.ttl_s is UNSET and not wanted.lease:
        raise invalid_body(INVALID_LOCK, "a lock belongs to one lease: give lease, or ttl_s for a new one", _USAGE)
    if wanted.value is not UNSET and wanted.value_base64 is not UNSET:
        raise invalid_body(INVALID_LOCK, "value and value_base64 exclude each other", _USAGE)
    value = bytes_of(wanted.value, wanted.value_base64)
    if len(value) > MAX_LOCK_VALUE_BYTES:
        cause = f"value has {len(value)} bytes: use at most {MAX_LOCK_VALUE_BYTES}, and a key for more"
        raise invalid_body(INVALID_LOCK, cause, _USAGE)
    ttl_ms = round(wanted.ttl_s * 1000) if wanted.ttl_s is not UNSET else 0
    granted_ms = provisional(ttl_ms) if not wanted.lease else 0
    return AcquireLock(name, wanted.lease, granted_ms, value, wanted.wait_s > 0), ttl_ms, wanted.wait_s


def _document(entry: QueueEntryStatus) -> QueueEntryDocument:
    value, value_base64 = text_or_base64(entry.value)
    return QueueEntryDocument(lease=entry.lease, fence=entry.fencing_token, value=value, value_base64=value_base64)


def _named(name: bytes) -> dict[str, Any]:
    text, blob = text_or_base64(name)
    return {"name": text, "name_base64": blob}
