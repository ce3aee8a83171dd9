"""The load generator: non-blocking sockets and one poll for all of them.

An answer counts as received when the poll that reports it returns, and a request of a closed loop as sent just before
it is written, so these latencies exclude the generator's own work. Latencies of an open loop include that work, because
a request is due at a fixed time even if the generator is busy.
"""

import asyncio
import itertools
import select
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from bench.load.connection import Connection
from bench.load.options import LoadOptions, Mix, address_of, draw
from bench.load.recording import Recording
from bench.load.wire import Requests

GRACE_NS = 5_000_000_000
"""Time after the end of a load in which answers may still arrive. A replica ends each request within 3 s."""
MAX_WAIT_S = 0.05
FILL_BATCH_BYTES = 500_000
UNTIL_STOPPED_S = 1e6

_clock = time.monotonic_ns


class Observer(Protocol):
    """A recipient of every answer, for a check of its content."""

    def answered(self, connection: Connection, answer: bytes, now_ns: int) -> None:
        """Record the answer to the request in flight on `connection`."""

    def lost(self, connection: Connection, now_ns: int) -> None:
        """Record that the request in flight on `connection` will never be answered."""


class Generator:
    """The connections of a load. Raises OSError when they cannot be opened, ConnectionError when none is left."""

    def __init__(self, options: LoadOptions, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer
        addresses = [address_of(url) for url in options.urls]
        host, port = addresses[0]
        self._requests = Requests(options.mix, f"{host}:{port}")
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._busy: dict[int, Connection] = {}
        self._number = 0
        self._stopping = False
        self.recording = Recording(0, 0, 0)
        for number in range(options.connections):
            self._open(addresses[number % len(addresses)])

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.socket.close()
        self._poll.close()

    def stop(self) -> None:
        """Make `run` end after the requests in flight. Another thread may call this method."""
        self._stopping = True

    def fill(self) -> None:
        """Put every key once. Raises ConnectionError when one is refused."""
        mix = self._options.mix
        never_ns = 1 << 62
        self.recording = Recording(_clock(), never_ns, never_ns)
        self._closed_loop(iter(range(-(-mix.keys // mix.batch))), never_ns)
        if self.recording.lost or not self.recording.statuses.keys() <= {200, 201}:
            raise ConnectionError(
                f"not every key could be written before the load: {self.recording.lost} requests without an answer, "
                f"answers by status {dict(self.recording.statuses)}"
            )

    def run(self, operations: Iterable[int] | None = None) -> Recording:
        """Run the load; repeat `operations` (see `draw`) in a cycle."""
        endless = itertools.cycle(draw(self._options.mix) if operations is None else operations)
        start_ns = _clock()
        measured_ns = start_ns + int(1e9 * self._options.warm_up_s)
        end_ns = measured_ns + int(1e9 * self._options.seconds)
        self.recording = Recording(start_ns, measured_ns, end_ns)
        if self._options.rate is None:
            self._closed_loop(endless, end_ns)
        else:
            self._open_loop(endless, 1e9 / self._options.rate)
        return self.recording

    def _closed_loop(self, operations: Iterator[int], end_ns: int) -> None:
        """Send the next request on each connection whose answer has arrived, until `end_ns` or the last operation."""
        clock = self._measured_clock()
        for connection in list(self._connections.values()):
            self._send_next(connection, operations)
        while self._busy and next(clock) < end_ns and not self._stopping:
            for connection in self._answered(MAX_WAIT_S):
                self._send_next(connection, operations)
        self._drain()

    def _open_loop(self, operations: Iterator[int], interval_ns: float) -> None:
        """Send requests when they are due, or as soon after that as a connection is free."""
        start_ns, end_ns = self.recording.start_ns, self.recording.end_ns
        due = (start_ns + int(number * interval_ns) for number in itertools.count())  # no rounding error adds up
        due_ns = next(due)
        clock = self._measured_clock()
        free = list(self._connections.values())
        now = next(clock)
        while now < end_ns and not self._stopping:
            while free and due_ns <= now:
                connection = free.pop()
                if connection.open:  # a broken one is closed, and its replacement is also in `free`
                    self._send(connection, next(operations), due_ns)
                    due_ns = next(due)
            wait_ns = min(due_ns, end_ns) - _clock() if free else MAX_WAIT_S * 1e9
            free.extend(self._answered(min(max(wait_ns, 0) / 1e9, MAX_WAIT_S)))
            now = next(clock)
        while due_ns < end_ns and not self._stopping:
            self.recording.never_sent(next(operations), due_ns)
            due_ns = next(due)
        self._drain()

    def _measured_clock(self) -> Iterator[int]:
        """Yield the current time, again and again; begin the measured time when the warm-up is over."""
        while (now := _clock()) < self.recording.measured_ns:
            yield now
        self.recording.begin_measuring()
        while True:
            yield _clock()

    def _drain(self) -> None:
        """Wait for the answers to requests in flight; count those without one as lost."""
        deadline = _clock() + GRACE_NS
        while self._busy and _clock() < deadline:
            self._answered(MAX_WAIT_S)
        for connection in list(self._busy.values()):
            self._drop(connection)

    def _answered(self, timeout_s: float) -> list[Connection]:
        """Wait for answers; return the connections that are free again."""
        # epoll's timeout is in milliseconds; select waits for the epoll object with a finer timeout.
        if timeout_s < 0.001:
            select.select([self._poll], [], [], timeout_s)
            timeout_s = 0.0
        events = self._poll.poll(timeout_s)
        now = _clock()
        free = []
        for descriptor, event in events:
            connection = self._connections[descriptor]
            try:
                if event & select.EPOLLOUT and connection.flush():
                    self._poll.modify(descriptor, select.EPOLLIN)
                if not event & ~select.EPOLLOUT:
                    continue
                answer = connection.receive()
            except OSError:
                free += self._replaced(connection)
                continue
            if answer is None:
                continue
            if self._busy.pop(descriptor, None) is None:
                raise ConnectionAbortedError(f"{connection.address} sent an answer without a request")
            self.recording.answered(connection.operation, int(answer[9:12]), connection.since_ns, now)
            if self._observer is not None:
                self._observer.answered(connection, answer, now)
            free.append(connection)
        return free

    def _send_next(self, connection: Connection, operations: Iterator[int]) -> None:
        operation = next(operations, None)
        if operation is not None:
            self._send(connection, operation, _clock())

    def _send(self, connection: Connection, operation: int, since_ns: int) -> None:
        self._number += 1
        connection.operation = operation
        connection.number = self._number
        connection.since_ns = since_ns
        connection.sent_ns = since_ns if self._options.rate is None else _clock()
        descriptor = connection.socket.fileno()
        self._busy[descriptor] = connection
        try:
            if not connection.send(self._requests.make(operation, self._number)):
                self._poll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            return  # the next poll reports the error

    def _open(self, address: tuple[str, int]) -> Connection:
        connection = Connection(address)
        self._connections[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _replaced(self, broken: Connection) -> list[Connection]:
        """Return a new connection in place of a broken one, or nothing when the replica refuses it."""
        self._drop(broken)
        try:
            return [self._open(broken.address)]
        except OSError as error:
            if not self._connections:
                raise ConnectionError(
                    f"no connection is left, the last one was to {broken.address}: {error}"
                ) from error
            return []

    def _drop(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        del self._connections[descriptor]
        if self._busy.pop(descriptor, None) is not None:
            self.recording.lost += 1
            if self._observer is not None:
                self._observer.lost(connection, _clock())
        self._poll.unregister(descriptor)
        connection.socket.close()


async def fill(url: str, mix: Mix, connections: int = 16) -> None:
    """Put every key of `mix` once, many in each transaction. Raises OSError."""
    batch = max(1, min(100, mix.keys, FILL_BATCH_BYTES // mix.value_bytes))
    mix = Mix(keys=mix.keys, value_bytes=mix.value_bytes, prefix=mix.prefix, batch=batch)
    generator = Generator(LoadOptions(mix=mix, urls=[url], connections=connections))
    try:
        await asyncio.to_thread(generator.fill)
    finally:
        generator.close()


@asynccontextmanager
async def background_load(options: LoadOptions) -> AsyncIterator[Generator]:
    """Run a load in a thread during the block; the length in `options` is ignored."""
    generator = Generator(msgspec.structs.replace(options, warm_up_s=0.0, seconds=UNTIL_STOPPED_S))
    running = asyncio.create_task(asyncio.to_thread(generator.run))
    try:
        yield generator
    finally:
        generator.stop()
        try:
            await running
        finally:
            generator.close()
