"""`/locks/{name}`: who comes first has the lock, until it gives it up or its lease is over.

The answer carries a fence, a number that grows from one holder to the next. What the lock guards can be written on the
condition that the fence still holds it: `PUT /kv/{key}?lock=...&fence=...`, or a compare in `POST /txn`.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    KeepLeaseAlive,
    LockHeld,
    LockNotHeld,
    LockReleased,
    ReleaseLock,
)
from kvstore.api.json.documents import (
    AcquireRequest,
    LockAcquiredDocument,
    LockDocument,
    LockPlaceDocument,
    LockReleasedDocument,
    bytes_of,
    text_or_base64,
)
from kvstore.api.limits import MAX_LOCK_VALUE_BYTES, MAX_REVISION
from kvstore.api.queries import Consistency, LockLookup
from kvstore.api.results import LockAnswer, QueueEntryStatus
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.in_flight import InFlight
from kvstore.server.http.problems import INVALID_LOCK, LOCKED, NOT_HELD, RETRY_AFTER, Problem, not_allowed
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_body import decode, invalid_body
from kvstore.server.http.request_target import consistency_named, decode_key, no_parameters, number_named, parameters
from kvstore.server.http.response import HttpResponse, json_response
from kvstore.server.http.writes import IdempotencyKey, no_such_lease, once, write
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService
from kvstore.state_machine.lease_index import LeaseIndex, QueueEntry

PATH = "/locks/"
_ALLOWED = "GET, HEAD, POST, DELETE"
_USAGE = '{"lease": 17} or {"ttl_s": 10}, and if you like "value" and "wait_s"'


class _Waiter(NamedTuple):
    """Who waits for a turn; `called` is set when it has come, or the place is gone."""

    name: bytes
    fence: int
    called: asyncio.Event

    def is_decided(self, locks: dict[bytes, dict[int, QueueEntry]]) -> bool:
        queue = locks.get(self.name, {})
        return self.fence not in queue or self.fence == next(iter(queue))


class LockHandlers:
    """Answers requests for locks out of a replica."""

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
        """Nobody waits any longer: the replica is shutting down."""
        for waiter in self._waiters:
            waiter.called.set()

    async def _look(self, name: bytes, query: str) -> HttpResponse:
        with self._in_flight.counted():
            found = await self._found(name, consistency_named(parameters(query, ("consistency",))))
        places = [_place(place) for place in found.queue]
        document = LockDocument(
            **_named(name),
            revision=found.revision,
            holder=places[0] if places else None,
            waiting=places[1:],
            more=found.more,
        )
        return json_response(200, document)

    async def _acquire(self, request: HttpRequest, name: bytes, query: str) -> HttpResponse:
        no_parameters(query)
        with self._in_flight.counted():
            command, wait_s = _acquiring(request.body, name)
            result = await write(self._replica, once(command, IdempotencyKey.of(request), request))
        if isinstance(result, LockHeld):
            raise locked(name, result)
        if not isinstance(result, AcquireResult):
            raise TypeError(f"an acquisition was answered with {result!r}")
        held = result.held or await self._stand_in_line(request, command, result, wait_s)
        document = LockAcquiredDocument(**_named(name), lease=result.lease, fence=result.fencing_token, held=held)
        return json_response(200 if held else 202, document)

    async def _stand_in_line(
        self, request: HttpRequest, command: AcquireLock, place: AcquireResult, wait_s: float
    ) -> bool:
        """Whether its turn has come within this time. A lease of its own, which nobody knows yet, lives meanwhile for
        as long as the client is there. Raises Problem when its lease is over, or Refused."""
        loop, name = asyncio.get_running_loop(), command.name
        deadline = loop.time() + wait_s
        if command.lease:
            return await self._wait(name, place, deadline)
        while True:
            held = await self._wait(name, place, min(deadline, loop.time() + command.ttl_ms / 3000))
            if request.client.is_gone:
                await write(self._replica, ReleaseLock(name, place.lease))
                return False
            await write(self._replica, KeepLeaseAlive(place.lease))
            if held or loop.time() >= deadline or self._replica.stopping:
                return held

    async def _wait(self, name: bytes, place: AcquireResult, deadline: float) -> bool:
        """Whether its turn has come by then. Raises Problem when its lease is over."""
        waiter = _Waiter(name, place.fencing_token, asyncio.Event())
        if not waiter.is_decided(self._replica.lease_index.locks) and not self._replica.stopping:
            self._waiters.add(waiter)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await waiter.called.wait()
            finally:
                self._waiters.remove(waiter)
        lease_index = self._replica.lease_index
        if place.fencing_token not in lease_index.locks.get(name, {}):
            raise _given_up(name, place) if place.lease in lease_index.leases else no_such_lease(place.lease)
        return waiter.is_decided(lease_index.locks)

    def _changed(self) -> None:
        """When somebody came or went, in whichever queue, those are woken whom it concerns."""
        lease_index = self._replica.lease_index
        if lease_index is not self._seen or lease_index.queue_changes != self._moves:
            self._seen, self._moves = lease_index, lease_index.queue_changes
            for waiter in self._waiters:
                if waiter.is_decided(lease_index.locks):
                    waiter.called.set()

    async def _release(self, request: HttpRequest, name: bytes, query: str) -> HttpResponse:
        lease = number_named(parameters(query, ("lease",)), "lease", 1, MAX_REVISION)
        if lease is None:
            raise Problem(INVALID_LOCK, "Say whose it is: ?lease=17, as POST gave it.")
        with self._in_flight.counted():
            result = await write(self._replica, once(ReleaseLock(name, lease), IdempotencyKey.of(request), request))
        if isinstance(result, LockNotHeld):
            detail = f"Lease {lease} neither holds this lock nor waits for it. GET tells who does."
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
    """409, with who holds it."""
    detail = (
        f"Lease {busy.lease} holds it, with fence {busy.fencing_token}. Try again, or wait in the queue with wait_s."
    )
    about = {**_named(name), "holder": LockPlaceDocument(lease=busy.lease, fence=busy.fencing_token)}
    return Problem(LOCKED, detail, fields=RETRY_AFTER, about=about)


def _given_up(name: bytes, place: AcquireResult) -> Problem:
    detail = f"The place of lease {place.lease} was given up by a DELETE since. Ask again for another one."
    return Problem(NOT_HELD, detail, about=_named(name))


def _acquiring(body: bytes, name: bytes) -> tuple[AcquireLock, float]:
    wanted = decode(body, AcquireRequest, INVALID_LOCK, _USAGE)
    if (wanted.ttl_s is None) == (wanted.lease == 0):
        raise invalid_body(INVALID_LOCK, "a lock goes with one lease: give lease, or ttl_s for one of its own", _USAGE)
    if wanted.value is not None and wanted.value_base64 is not None:
        raise invalid_body(INVALID_LOCK, "there are value and value_base64: give one of them", _USAGE)
    value = bytes_of(wanted.value, wanted.value_base64)
    if len(value) > MAX_LOCK_VALUE_BYTES:
        cause = f"value has {len(value)} bytes: use up to {MAX_LOCK_VALUE_BYTES}, and a key for more"
        raise invalid_body(INVALID_LOCK, cause, _USAGE)
    ttl_ms = round(wanted.ttl_s * 1000) if wanted.ttl_s is not None else 0
    return AcquireLock(name, wanted.lease, ttl_ms, value, wanted.wait_s > 0), wanted.wait_s


def _place(place: QueueEntryStatus) -> LockPlaceDocument:
    value, value_base64 = text_or_base64(place.value)
    return LockPlaceDocument(lease=place.lease, fence=place.fencing_token, value=value, value_base64=value_base64)


def _named(name: bytes) -> dict[str, Any]:
    text, blob = text_or_base64(name)
    return {"name": text, "name_base64": blob}
