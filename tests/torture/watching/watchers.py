"""One process with all the watchers: `python -m tests.torture.watching.watchers`, with its order on standard input.

Plain sockets and one poll, as `bench.load` does it: a thousand watchers of a thousand changes a second are a million
events a second, which nobody can look at one by one. A watcher resumes as any client does: behind the last id that it
has seen, at another replica.
"""

import random
import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress

import msgspec

from tests.torture.watching.events import Chunk, Seen, parse

RECEIVE_BYTES = 1 << 18
KNOWN_CHUNKS = 1000
PAUSE_NS = 100_000_000
"""Between two attempts of one watcher to find a replica."""
CONNECT_S = 2.0
DEAF_S = 30.0
"""Told where the end is, all watchers are there after this time, or they lack something."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """So many `watchers` of all keys that begin with `prefix`, from the first revision on, at the first of
    `addresses`. The receptions of every `sampled`th are written down."""

    addresses: list[tuple[str, int]]
    watchers: int
    prefix: str
    sampled: int


class _Watcher:
    """`event`: revision of the last event that it took, `resume` the last id that it saw."""

    __slots__ = ("address", "event", "headed", "number", "received", "resume", "socket")

    def __init__(self, number: int, address: tuple[str, int]) -> None:
        self.number = number
        self.address = address
        self.socket: socket.socket | None = None
        self.received = bytearray()
        self.headed = False
        self.event = self.resume = 0


class _EndedError(Exception):
    """This watch does not go on here."""


class Watchers:
    """All of them."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._poll = select.epoll()
        self._open: dict[int, _Watcher] = {}
        self._closed: list[tuple[int, _Watcher]] = []
        self._known: dict[bytes, int] = {}
        self._chunks: list[Chunk] = []
        self._counts: list[int] = []
        self._steps: Counter[tuple[int, int]] = Counter()
        self._receptions: list[tuple[int, int]] = []
        self._resumed = self._forgotten = 0
        self._all = [_Watcher(number, order.addresses[0]) for number in range(order.watchers)]
        for watcher in self._all:
            self._ask(watcher)

    @property
    def headed(self) -> int:
        """How many of them are served."""
        return sum(watcher.headed for watcher in self._all)

    def run(self, until: int | None, seconds: float) -> None:
        """Take what comes, for so long, or until all of them have had the revision `until`."""
        deadline_ns = time.monotonic_ns() + int(1e9 * seconds)
        while (now_ns := time.monotonic_ns()) < deadline_ns:
            if until is not None and all(watcher.event >= until for watcher in self._all):
                return
            for due_ns, watcher in list(self._closed):
                if due_ns <= now_ns:
                    self._closed.remove((due_ns, watcher))
                    self._resume(watcher)
            events = self._poll.poll(0.05)
            now_ns = time.monotonic_ns()
            for descriptor, _ in events:
                self._take(self._open[descriptor], now_ns)

    def seen(self) -> Seen:
        """All of it."""
        return Seen(
            watchers=len(self._all),
            chunks=self._chunks,
            counts=self._counts,
            steps=[(before, after, count) for (before, after), count in self._steps.items()],
            ends=list(Counter(watcher.event for watcher in self._all).items()),
            receptions=self._receptions,
            resumed=self._resumed,
            forgotten=self._forgotten,
        )

    def _ask(self, watcher: _Watcher) -> None:
        """Raises OSError."""
        opened = socket.create_connection(watcher.address, timeout=CONNECT_S)
        where = f"Last-Event-ID: {watcher.resume}\r\n" if watcher.resume else ""
        first = "" if watcher.resume else "&from_revision=1"
        opened.sendall(
            f"GET /watch?prefix={self._order.prefix}{first} HTTP/1.1\r\nHost: replica\r\n{where}\r\n".encode()
        )
        opened.setblocking(False)
        watcher.socket, watcher.headed = opened, False
        watcher.received.clear()
        self._open[opened.fileno()] = watcher
        self._poll.register(opened, select.EPOLLIN)

    def _resume(self, watcher: _Watcher) -> None:
        others = [address for address in self._order.addresses if address != watcher.address]
        watcher.address = random.choice(others or [watcher.address])
        try:
            self._ask(watcher)
        except OSError:
            self._closed.append((time.monotonic_ns() + PAUSE_NS, watcher))

    def _take(self, watcher: _Watcher, now_ns: int) -> None:
        opened = watcher.socket
        if opened is None:
            return
        try:
            self._receive(watcher, opened)
            if watcher.headed or self._take_head(watcher):
                self._take_chunks(watcher, now_ns)
        except (_EndedError, OSError):
            self._poll.unregister(opened)
            del self._open[opened.fileno()]
            opened.close()
            self._resumed += watcher.headed
            watcher.socket, watcher.headed = None, False
            self._closed.append((now_ns, watcher))

    @staticmethod
    def _receive(watcher: _Watcher, opened: socket.socket) -> None:
        data = opened.recv(RECEIVE_BYTES)
        if not data:
            raise _EndedError
        watcher.received += data

    def _take_head(self, watcher: _Watcher) -> bool:
        end = watcher.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        status = bytes(watcher.received[9:12])
        if status != b"200":
            self._forgotten += status == b"410"
            raise _EndedError
        del watcher.received[: end + 4]
        watcher.headed = True
        return True

    def _take_chunks(self, watcher: _Watcher, now_ns: int) -> None:
        """Chunks of HTTP, which are those that the replica wrote."""
        received, start = watcher.received, 0
        while (line := received.find(b"\r\n", start)) >= 0:
            length = int(received[start:line], 16)
            end = line + 2 + length
            if len(received) < end + 2:
                break
            if not length:
                raise _EndedError
            self._take_chunk(watcher, bytes(received[line + 2 : end]), now_ns)
            start = end + 2
        del received[:start]

    def _take_chunk(self, watcher: _Watcher, body: bytes, now_ns: int) -> None:
        number = self._known.get(body)
        if number is None:
            if len(self._known) >= KNOWN_CHUNKS:
                self._known.clear()
            number = self._known[body] = len(self._chunks)
            self._chunks.append(parse(body))
            self._counts.append(0)
        chunk = self._chunks[number]
        if chunk.lost:
            self._forgotten += 1
            raise _EndedError
        self._counts[number] += 1
        if chunk.resume is not None:
            watcher.resume = chunk.resume
        if chunk.events:
            self._steps[watcher.event, chunk.events[0].revision] += 1
            watcher.event = chunk.events[-1].revision
            if watcher.number % self._order.sampled == 0:
                self._receptions.append((number, now_ns))


def main() -> None:
    """Read an order, watch, and say so; then wait for a line with the last revision, and tell what was seen."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    watchers = Watchers(order)
    while watchers.headed < order.watchers:
        watchers.run(None, 0.1)
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    told = select.epoll()
    told.register(sys.stdin.buffer, select.EPOLLIN)
    while not told.poll(0):
        watchers.run(None, 0.2)
    watchers.run(int(sys.stdin.buffer.readline()), DEAF_S)
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.msgpack.encode(watchers.seen()))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
