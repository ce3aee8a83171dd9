"""Batches concurrent writes of single keys into transactions.

A request costs client and replica some hundred microseconds, an operation of a transaction a few. So writes that arrive
while requests are under way wait for the next request. A single write is sent at once, as an ordinary request, and is
no slower for it. A caller does not notice the other writes of its batch:

- A write that fails in a batch is sent again on its own, and so is each write of a batch that is rejected as a whole.
  Each caller gets the response that it would have got without batching.
- A batch contains one write of a key at most. All writes of a batch have the same revision: two writes of one key could
  not be told apart by it, and a condition on that revision would hold for both.

Reads are not batched: a transaction that only reads goes through the log, to the disks of a majority, whereas a GET is
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
"""Maximum of operations and compares in one batch, which is the limit of a transaction. It also keeps the answer below
the 64 KiB that replicas store of one (`kvstore.state_machine.idempotency`)."""
MAX_BYTES = 512 * 1024
"""Maximum size of the body of one batch: half of the default limit of a replica."""
MAX_REQUESTS = 4
"""Maximum number of requests under way."""
GRACE_S = 0.1
"""Time that a caller waits after its deadline: the request, which has the same deadline, raises a better message."""

WriteResult = PutResult | DeleteResult | NotFound
Send = Callable[[Request, float], Awaitable[Response]]


class SingleWrite(msgspec.Struct, frozen=True):
    """A write of one key: `operation` if all `compares` hold. `request` is the same as an ordinary request."""

    operation: Put | LeasedPut | Delete
    compares: list[Compare]
    request: Request

    @property
    def is_batchable(self) -> bool:
        """Whether the write can be part of a batch: a transaction cannot grant a lease."""
        return not (isinstance(self.operation, LeasedPut) and self.operation.ttl_ms)

    @property
    def weight(self) -> int:
        """Share of MAX_WEIGHT that the write takes."""
        own = 2 if isinstance(self.operation, Delete) else 1  # the result of a deletion is longer
        return own + (1 + len(self.compares) if self.compares else 0)

    @property
    def batch_operation(self) -> Put | LeasedPut | Delete | Transact:
        """The write as an operation of a batch."""
        return Transact(self.compares, [self.operation], []) if self.compares else self.operation

    def result_of(self, response: Response) -> WriteResult:
        """Return the result in the response to `request`."""
        if not isinstance(self.operation, Delete):
            return msgspec.json.decode(response.body, type=PutResult)
        if response.status == 404:
            return NotFound(0)
        return msgspec.json.decode(response.body, type=DeleteResult)

    def batch_result_of(self, result: OperationResult) -> WriteResult | None:
        """Return the result of `batch_operation`; None when a condition failed."""
        if isinstance(result, TransactResult):
            result = result.results[0] if result.succeeded else result
        return result if isinstance(result, WriteResult) else None


class _QueuedWrite:
    """A write whose caller waits for `done`."""

    def __init__(self, write: SingleWrite, deadline: float) -> None:
        self.write = write
        self.deadline = deadline
        self.alone = not write.is_batchable or len(write.request.body) > MAX_BYTES
        self.sent = False
        self.done: asyncio.Future[WriteResult] = asyncio.get_running_loop().create_future()

    @cached_property
    def packed(self) -> bytes:
        """The encoded operation of a batch, made only when there is a batch."""
        return pack_operation(self.write.batch_operation)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self, result: WriteResult) -> None:
        if not self.done.done():
            self.done.set_result(result)


class WriteBatcher:
    """Sends writes with `send`, which takes a request and its deadline."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._queue: deque[_QueuedWrite] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Handle | None = None

    async def write(self, write: SingleWrite) -> WriteResult:
        """Execute `write` and return its result. Raises ClientError."""
        queued = _QueuedWrite(write, time.monotonic() + self._timeout_s)
        self._queue.append(queued)
        if self._starting is None and len(self._under_way) < MAX_REQUESTS:
            self._starting = asyncio.get_running_loop().call_soon(self._start)  # with writes of the same moment
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                return await queued.done
        except TimeoutError:
            if queued.sent:
                raise UnknownOutcome(
                    f"no answer after {self._timeout_s:g} s; the write may have been done or not: read the key to see"
                ) from None
            raise Unavailable(
                f"the write was not sent within {self._timeout_s:g} s, because too many writes are under way"
            ) from None

    async def stop(self) -> None:
        """Fail the waiting writes and cancel the requests under way."""
        while self._queue:
            self._queue.popleft().fail(Unavailable("the client was closed before the write was sent"))
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _start(self) -> None:
        self._starting = None
        while len(self._under_way) < MAX_REQUESTS:
            batch = self._next_batch()
            if not batch:
                return
            task = asyncio.create_task(self._execute(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    def _next_batch(self) -> list[_QueuedWrite]:
        """Take the writes of the next request from the queue, in their order; none when the queue is empty."""
        batch: list[_QueuedWrite] = []
        left: list[_QueuedWrite] = []
        keys: set[bytes] = set()
        weight = size = 0
        while self._queue and not (batch and batch[0].alone):
            each = self._queue.popleft()
            if each.done.done():  # its caller was cancelled
                continue
            key = each.write.operation.key
            if key in keys or (batch and each.alone):
                left.append(each)
                keys.add(key)
                continue
            if batch or self._queue:
                weight += each.write.weight
                size += 0 if each.alone else len(each.packed) + 1
                if batch and (weight > MAX_WEIGHT or size > MAX_BYTES):
                    left.append(each)
                    break
            batch.append(each)
            keys.add(key)
        self._queue.extendleft(reversed(left))
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
                each.fail(UnknownOutcome("the client was closed; the write may have been done or not"))
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in the callers
            for each in batch:
                each.fail(error)

    async def _execute_transaction(self, batch: list[_QueuedWrite]) -> None:
        request = Request("POST", "/txn", pack_operations(each.packed for each in batch))
        try:
            response = await self._send(request, max(each.deadline for each in batch))
        except Rejected:
            self._send_alone(batch)
            return
        asked = Transact([], [each.write.batch_operation for each in batch], [])
        results = unpack_results(response.body, asked).results
        failed = []
        for each, result in zip(batch, results, strict=True):
            written = each.write.batch_result_of(result)
            if written is None:
                failed.append(each)
            else:
                each.succeed(written)
        self._send_alone(failed)

    def _send_alone(self, failed: list[_QueuedWrite]) -> None:
        for each in reversed(failed):
            each.alone, each.sent = True, False
            self._queue.appendleft(each)
