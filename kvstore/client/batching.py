"""Batching of concurrent writes of single keys into transactions.

A request costs client and replica some hundred microseconds, an operation of a transaction only a few. So writes that
begin at the same moment share a request, and so do writes that wait because MAX_REQUESTS requests are in flight. A lone
write is sent at once, as an ordinary request. Batching does not change the result of a write:

- A write whose condition fails in a batch is sent again on its own, and so is each write of a batch that is rejected as
  a whole. Each caller gets the response that it would have got without batching.
- A batch contains at most one write of a key. All writes of a batch get the same revision, so two writes of one key
  would be indistinguishable by revision, and a condition on that revision would hold for both.

Reads are not batched: a read-only transaction goes through the log, to the disks of a majority, whereas a GET is
answered from memory.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cached_property

import msgspec

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    LeasedPut,
    NotFound,
    OperationResult,
    Put,
    PutResult,
    Transact,
    TransactResult,
)
from kvstore.api.json.transaction_packing import pack_operation, pack_operations, unpack_results
from kvstore.client.caller import Request
from kvstore.client.errors import Rejected, Response, Unavailable, UnknownOutcome

MAX_WEIGHT = 1000
"""Maximum weight of one batch: the limit of operations and compares in a transaction. It also keeps the response below
64 KiB, the most that a replica stores for an idempotency key (`kvstore.state_machine.idempotency`)."""
MAX_BYTES = 512 * 1024
"""Maximum size of the body of one batch: half of a replica's default limit."""
MAX_REQUESTS = 4
"""Maximum number of requests in flight."""
GRACE_S = 0.1
"""Extra time before the caller's own timeout, so that the request fails first, with a more precise message."""

WriteResult = PutResult | DeleteResult | NotFound
Send = Callable[[Request, float], Awaitable[Response]]


class SingleWrite(msgspec.Struct, frozen=True):
    """A write of one key: `operation`, executed if all `compares` hold, and the equivalent ordinary `request`."""

    operation: Put | LeasedPut | Delete
    compares: list[Compare]
    request: Request

    @property
    def is_batchable(self) -> bool:
        """Whether the write can be part of a batch; a transaction cannot grant a lease."""
        return not (isinstance(self.operation, LeasedPut) and self.operation.ttl_ms)

    @property
    def weight(self) -> int:
        """Share of MAX_WEIGHT that the write takes."""
        operation = 2 if isinstance(self.operation, Delete) else 1  # the result of a deletion is longer
        return operation + (1 + len(self.compares) if self.compares else 0)

    @property
    def batch_operation(self) -> Put | LeasedPut | Delete | Transact:
        """The write as an operation of a batch."""
        return Transact(self.compares, [self.operation], []) if self.compares else self.operation

    def result_of(self, response: Response) -> WriteResult:
        """Return the result in the response to `request`."""
        if not isinstance(self.operation, Delete):
            return response.decode(PutResult)
        if response.status == 404:
            return NotFound(0)
        return response.decode(DeleteResult)

    def batch_result_of(self, result: OperationResult) -> WriteResult | None:
        """Return the result of `batch_operation`; None when a condition failed."""
        if isinstance(result, TransactResult):
            result = result.results[0] if result.succeeded else result
        return result if isinstance(result, WriteResult) else None


class _QueuedWrite:
    """A queued write, whose caller waits for `done`. With `alone` it is sent as an ordinary request."""

    def __init__(self, write: SingleWrite, deadline: float) -> None:
        self.write = write
        self.deadline = deadline
        self.alone = not write.is_batchable or len(write.request.body) > MAX_BYTES
        self.sent = False
        self.done: asyncio.Future[WriteResult] = asyncio.get_running_loop().create_future()

    @cached_property
    def packed(self) -> bytes:
        """The encoded `batch_operation`, computed only if the write is batched."""
        return pack_operation(self.write.batch_operation)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self, result: WriteResult) -> None:
        if not self.done.done():
            self.done.set_result(result)


class WriteBatcher:
    """A queue of writes. `send` sends one request and returns its response before a deadline."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._queue: deque[_QueuedWrite] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Handle | None = None

    async def write(self, write: SingleWrite) -> WriteResult:
        """Execute `write` and return its result. Raises ClientError."""
        queued = _QueuedWrite(write, time.monotonic() + self._timeout_s)
        self._queue.append(queued)
        if self._starting is None and len(self._in_flight) < MAX_REQUESTS:
            self._starting = asyncio.get_running_loop().call_soon(self._start)  # after other tasks have queued writes
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                return await queued.done
        except TimeoutError:
            if queued.sent:
                raise UnknownOutcome(
                    f"no answer after {self._timeout_s:g} s; the write may or may not have been executed: read the key "
                    "to find out"
                ) from None
            raise Unavailable(
                f"the write was not sent within {self._timeout_s:g} s: send fewer writes at a time, or raise timeout_ms"
            ) from None

    async def stop(self) -> None:
        """Fail the queued writes and cancel the requests in flight."""
        while self._queue:
            self._queue.popleft().fail(Unavailable("the client was closed before the write was sent"))
        for task in self._in_flight:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    def _start(self) -> None:
        self._starting = None
        while len(self._in_flight) < MAX_REQUESTS:
            batch = self._next_batch()
            if not batch:
                return
            task = asyncio.create_task(self._execute(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._request_done)

    def _request_done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._start()

    def _next_batch(self) -> list[_QueuedWrite]:
        """Take the writes of the next request from the queue, in order; return no writes when the queue is empty."""
        batch: list[_QueuedWrite] = []
        postponed: list[_QueuedWrite] = []
        keys: set[bytes] = set()
        weight = size = 0
        while self._queue and not (batch and batch[0].alone):
            each = self._queue.popleft()
            if each.done.done():  # the caller was cancelled
                continue
            key = each.write.operation.key
            if key in keys or (batch and each.alone):
                postponed.append(each)
                keys.add(key)
                continue
            if batch or self._queue:
                weight += each.write.weight
                size += 0 if each.alone else len(each.packed) + 1
                if batch and (weight > MAX_WEIGHT or size > MAX_BYTES):
                    postponed.append(each)
                    break
            batch.append(each)
            keys.add(key)
        self._queue.extendleft(reversed(postponed))
        return batch

    async def _execute(self, batch: list[_QueuedWrite]) -> None:
        for each in batch:
            each.sent = True
        try:
            if len(batch) == 1:
                response = await self._send(batch[0].write.request, batch[0].deadline)
                batch[0].succeed(batch[0].write.result_of(response))
            else:
                await self._execute_transaction(batch)
        except asyncio.CancelledError:
            for each in batch:
                each.fail(
                    UnknownOutcome(
                        "the client was closed; the write may or may not have been executed: read the key to find out"
                    )
                )
            raise
        except Exception as error:  # noqa: BLE001 - raised in the callers
            for each in batch:
                each.fail(error)

    async def _execute_transaction(self, batch: list[_QueuedWrite]) -> None:
        request = Request("POST", "/txn", pack_operations(each.packed for each in batch))
        try:
            response = await self._send(request, max(each.deadline for each in batch))
        except Rejected:
            self._requeue_alone(batch)
            return
        transaction = Transact([], [each.write.batch_operation for each in batch], [])
        with response.of_a_replica():
            results = unpack_results(response.body, transaction).results
        failed = []
        for each, result in zip(batch, results, strict=True):
            written = each.write.batch_result_of(result)
            if written is None:
                failed.append(each)
            else:
                each.succeed(written)
        self._requeue_alone(failed)

    def _requeue_alone(self, failed: list[_QueuedWrite]) -> None:
        for each in reversed(failed):
            each.alone, each.sent = True, False
            self._queue.appendleft(each)
