"""Writes of single keys that wait at the same time go together, as one transaction.

A request costs client and replica some hundred microseconds, an operation within a transaction a few. So what arrives
while requests are under way waits for the next one. A write that is alone is sent at once, as itself: nothing is slower
for it. Nobody notices the others:

- what fails, or a batch that is refused whole, goes again, each write by itself: it gets the answer that it would
  have had alone, and none suffers for another one;
- of a key there is one write in a batch: all writes of one have the same revision, by which two writes of the same key
  could not be told apart, and a condition on that revision would hold for both.

Reads are not gathered: a transaction that only reads goes through the log, to the disks of a majority, whereas a GET is
answered out of memory.
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
    Transacted,
)
from kvstore.client.caller import Request
from kvstore.client.documents import pack_batch, pack_operation, unpack_transacted
from kvstore.client.errors import Rejected, Response, Unavailable, UnknownOutcome

MOST_WEIGHT = 1000
"""Of one batch: so many operations and compares a transaction may have. It also keeps the answer below the 64 KiB that
are kept of one (`kvstore.state_machine.idempotency`)."""
MOST_BYTES = 512 * 1024
"""Of the body of one batch: half of what a replica takes, by default."""
MOST_UNDER_WAY = 4
GRACE_S = 0.1
"""A request ends by itself at its deadline, and says more than the writer that waits for it could."""

Written = PutResult | DeleteResult | NotFound
Call = Callable[[Request, float], Awaitable[Response]]


class KeyWrite(msgspec.Struct, frozen=True):
    """`operation` if all `compares` hold; `request` is the same by itself."""

    operation: Put | LeasedPut | Delete
    compares: list[Compare]
    request: Request

    @property
    def joins(self) -> bool:
        """Whether it can go with others: a lease of its own cannot be asked for in a transaction."""
        return not (isinstance(self.operation, LeasedPut) and self.operation.ttl_ms)

    @property
    def weight(self) -> int:
        """How much of a batch it takes."""
        own = 2 if isinstance(self.operation, Delete) else 1  # what deleted a key gives a longer answer
        return own + (1 + len(self.compares) if self.compares else 0)

    @property
    def member(self) -> Put | LeasedPut | Delete | Transact:
        """It as an operation of a batch."""
        return Transact(self.compares, [self.operation], []) if self.compares else self.operation

    def answered(self, answer: Response) -> Written:
        """What the answer to `request` says."""
        if not isinstance(self.operation, Delete):
            return msgspec.json.decode(answer.body, type=PutResult)
        if answer.status == 404:
            return NotFound(0)
        return msgspec.json.decode(answer.body, type=DeleteResult)

    def gathered(self, result: OperationResult) -> Written | None:
        """What `member` gave; None when it was not done."""
        if isinstance(result, Transacted):
            result = result.results[0] if result.succeeded else result
        return result if isinstance(result, Written) else None


class _QueuedWrite:
    """A write whose caller waits for `done`."""

    def __init__(self, write: KeyWrite, deadline: float) -> None:
        self.write = write
        self.deadline = deadline
        self.alone = not write.joins or len(write.request.body) > MOST_BYTES
        self.sent = False
        self.done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()

    @cached_property
    def packed(self) -> bytes:
        """It as it stands in a batch: most are alone, and need none."""
        return pack_operation(self.write.member)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self, result: Written) -> None:
        if not self.done.done():
            self.done.set_result(result)


class WriteBatcher:
    """Sends writes by `call`, which is given a request and its deadline."""

    def __init__(self, call: Call, timeout_s: float) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._waiting: deque[_QueuedWrite] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Handle | None = None

    async def do(self, write: KeyWrite) -> Written:
        """What `write` gave. Raises ClientError."""
        waiting = _QueuedWrite(write, time.monotonic() + self._timeout_s)
        self._waiting.append(waiting)
        if self._starting is None and len(self._under_way) < MOST_UNDER_WAY:
            self._starting = asyncio.get_running_loop().call_soon(self._start)  # with those that come at the same time
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                return await waiting.done
        except TimeoutError:
            if waiting.sent:
                raise UnknownOutcome("no answer in time; the write may have been done or not") from None
            raise Unavailable("the time is over before it was sent: too much is under way") from None

    async def stop(self) -> None:
        """Let nobody wait any longer."""
        while self._waiting:
            self._waiting.popleft().fail(Unavailable("the client was closed before it was sent"))
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _start(self) -> None:
        self._starting = None
        while len(self._under_way) < MOST_UNDER_WAY:
            batch = self._next()
            if not batch:
                return
            task = asyncio.create_task(self._carry(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    def _next(self) -> list[_QueuedWrite]:
        """Those that go now, in the order in which they came; none when nobody waits."""
        batch: list[_QueuedWrite] = []
        left: list[_QueuedWrite] = []
        keys: set[bytes] = set()
        weight = size = 0
        while self._waiting and not (batch and batch[0].alone):
            each = self._waiting.popleft()
            if each.done.done():  # its caller has gone
                continue
            key = each.write.operation.key
            if key in keys or (batch and each.alone):
                left.append(each)
                keys.add(key)
                continue
            if batch or self._waiting:
                weight += each.write.weight
                size += 0 if each.alone else len(each.packed) + 1
                if batch and (weight > MOST_WEIGHT or size > MOST_BYTES):
                    left.append(each)
                    break
            batch.append(each)
            keys.add(key)
        self._waiting.extendleft(reversed(left))
        return batch

    async def _carry(self, batch: list[_QueuedWrite]) -> None:
        for each in batch:
            each.sent = True
        try:
            if len(batch) == 1:
                answer = await self._call(batch[0].write.request, batch[0].deadline)
                batch[0].succeed(batch[0].write.answered(answer))
            else:
                await self._carry_together(batch)
        except asyncio.CancelledError:
            for each in batch:
                each.fail(UnknownOutcome("the client was closed; the write may have been done or not"))
            raise
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            for each in batch:
                each.fail(error)

    async def _carry_together(self, batch: list[_QueuedWrite]) -> None:
        request = Request("POST", "/txn", pack_batch(each.packed for each in batch))
        try:
            answer = await self._call(request, max(each.deadline for each in batch))
        except Rejected:
            self._send_alone(batch)
            return
        asked = Transact([], [each.write.member for each in batch], [])
        results = unpack_transacted(answer.body, asked).results
        failed = []
        for each, result in zip(batch, results, strict=True):
            written = each.write.gathered(result)
            if written is None:
                failed.append(each)
            else:
                each.succeed(written)
        self._send_alone(failed)

    def _send_alone(self, refused: list[_QueuedWrite]) -> None:
        for each in reversed(refused):
            each.alone, each.sent = True, False
            self._waiting.appendleft(each)
