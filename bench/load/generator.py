"""The loop of one process: non-blocking sockets, one poll for all of them, nothing in between.

A request costs a few microseconds of Python beside the system calls that every generator makes: `python -m bench load`
prints what it was. An answer has arrived when the poll that found it returns, not when its turn comes afterwards; a
request is sent when its own turn comes. So the time for which the generator itself is busy is in no latency of a closed
loop. In an open loop it is, for a request is due whether there is somebody to send it or not.
"""

import select
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bench.load.connection import Connection
from bench.load.order import Order, Schedule
from bench.load.recording import Recording
from bench.load.wire import Requests

TELL_S = 0.5
"""Time between two words on how far it is."""
GRACE_NS = 5_000_000_000
"""What is not answered so long after the end is lost. A replica ends each request within 3 s."""
LONGEST_WAIT_S = 0.05

_clock = time.monotonic_ns


class Observer(Protocol):
    """A recipient of every request and its answer, for a check of what the answers say."""

    def answered(self, connection: Connection, answer: bytes, now_ns: int) -> None:
        """Record the answer to the request under way on `connection`."""

    def lost(self, connection: Connection, now_ns: int) -> None:
        """Record that the request under way on `connection` will never be answered."""


class Generator:
    """One process's share of a load. `tell` is called with the count of answers now and then. Raises OSError when no
    connection can be made, ConnectionError when none is left."""

    def __init__(
        self, order: Order, observer: Observer | None = None, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        host, port = order.addresses[0]
        self._order = order
        self._observer = observer
        self._tell = tell
        self._requests = Requests(order.mix, order.worker, f"{host}:{port}")
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._busy: dict[int, Connection] = {}
        self._number = 0
        self._recording = Recording(0, 0, 0)
        for number in range(order.connections):
            self._open(order.addresses[number % len(order.addresses)])

    def close(self) -> None:
        """End all connections."""
        for connection in self._connections.values():
            connection.socket.close()
        self._poll.close()

    def fill(self) -> None:
        """Put this process's share of the keys, each once. Raises ConnectionError when one was not taken."""
        mix = self._order.mix
        share = range(self._order.worker, mix.keys // mix.batch, self._order.workers)
        never_ns = 1 << 62
        self._recording = Recording(_clock(), never_ns, _clock())
        self._closed(iter(share), never_ns)
        result = self._recording.result()
        if result.lost or not result.statuses.keys() <= {200, 201}:
            raise ConnectionError(
                f"not every key could be written before the run: {result.lost} requests lost, answers {result.statuses}"
            )

    def run(self, operations: Iterable[int], start_ns: int) -> Recording:
        """The load, from `start_ns` on; `operations` without an end, see `draw`."""
        measured_ns = start_ns + int(1e9 * self._order.warm_up_s)
        end_ns = measured_ns + int(1e9 * self._order.seconds)
        self._recording = Recording(start_ns, measured_ns, end_ns)
        time.sleep(max(0, start_ns - _clock()) / 1e9)
        if self._order.rate is None:
            self._closed(iter(operations), end_ns)
        else:
            self._open_loop(iter(operations), Schedule(self._order, start_ns), end_ns)
        return self._recording

    def _closed(self, operations: Iterator[int], end_ns: int) -> None:
        """Each connection asks again as soon as it is answered, until there is nothing more to ask."""
        marks = self._marks()
        for connection in list(self._connections.values()):
            self._ask_next(connection, operations)
        while self._busy:
            now = next(marks)
            if now >= end_ns:
                break
            for connection in self._answered(LONGEST_WAIT_S):
                self._ask_next(connection, operations)
        self._drain()

    def _open_loop(self, operations: Iterator[int], schedule: Schedule, end_ns: int) -> None:
        """Requests are sent when they are due, or as soon after that as a connection is free."""
        marks = self._marks()
        free = list(self._connections.values())
        now = _clock()
        while now < end_ns:
            while free and schedule.due_ns <= now:
                connection = free.pop()
                if connection.open:  # else it broke while it was free, and another one is here in its place
                    self._ask(connection, next(operations), schedule.due_ns)
                    schedule.advance()
            wait_ns = min(schedule.due_ns, end_ns) - _clock() if free else LONGEST_WAIT_S * 1e9
            free.extend(self._answered(min(max(wait_ns, 0) / 1e9, LONGEST_WAIT_S)))
            now = next(marks)
        while schedule.due_ns < end_ns:
            self._recording.never_sent(next(operations), schedule.due_ns)
            schedule.advance()
        self._drain()

    def _marks(self) -> Iterator[int]:
        """The present instant, again and again; on the way it tells how far it is and notes the end of the warm-up."""
        measuring = False
        tell_ns = 0
        while True:
            now = _clock()
            if now >= tell_ns:
                self._tell(self._recording.count())
                tell_ns = now + int(1e9 * TELL_S)
            if not measuring and now >= self._recording.measured_ns:
                self._recording.begin_measuring()
                measuring = True
            yield now

    def _drain(self) -> None:
        """Wait for the answers that are still to come, for a while. What has none by then is lost."""
        deadline = _clock() + GRACE_NS
        while self._busy and _clock() < deadline:
            self._answered(LONGEST_WAIT_S)
        for connection in list(self._busy.values()):
            self._lose(connection)

    def _answered(self, timeout_s: float) -> list[Connection]:
        """Wait for answers; the connections that are free again."""
        # The poll itself counts in milliseconds; as one of the things that `select` waits for it may end sooner.
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
                raise ConnectionAbortedError(f"{connection.address} answered what nobody has asked")
            self._recording.answered(connection.operation, int(answer[9:12]), connection.since_ns, now)
            if self._observer is not None:
                self._observer.answered(connection, answer, now)
            free.append(connection)
        return free

    def _ask_next(self, connection: Connection, operations: Iterator[int]) -> None:
        operation = next(operations, None)
        if operation is not None:
            self._ask(connection, operation, _clock())

    def _ask(self, connection: Connection, operation: int, since_ns: int) -> None:
        self._number += 1
        connection.operation = operation
        connection.number = self._number
        connection.since_ns = since_ns
        connection.sent_ns = since_ns if self._order.rate is None else _clock()
        descriptor = connection.socket.fileno()
        self._busy[descriptor] = connection
        try:
            if not connection.send(self._requests.make(operation, self._number)):
                self._poll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            return  # the next poll finds it broken

    def _open(self, address: tuple[str, int]) -> Connection:
        connection = Connection(address)
        self._connections[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _replaced(self, broken: Connection) -> list[Connection]:
        """A new connection for one that broke, if the replica takes one. Raises ConnectionError when none is left."""
        self._lose(broken)
        try:
            return [self._open(broken.address)]
        except OSError as error:
            if not self._connections:
                raise ConnectionError(f"no connection is left, the last one to {broken.address}: {error}") from error
            return []

    def _lose(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        del self._connections[descriptor]
        if self._busy.pop(descriptor, None) is not None:
            self._recording.lost += 1
            if self._observer is not None:
                self._observer.lost(connection, _clock())
        self._poll.unregister(descriptor)
        connection.socket.close()
