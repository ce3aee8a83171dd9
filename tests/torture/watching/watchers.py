"""A process with all watchers: `python -m tests.torture.watching.watchers`.

The process uses plain sockets and one poll, as the load generator of `bench` does: a thousand watchers of a thousand
changes per second receive a million events per second, too many to parse each. A watcher whose connection ends resumes
at another replica after the last event id that it received, as every client does.
"""

import random
import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress

import msgspec

from tests.torture.watching.events import EventChunk, Observations, parse

RECEIVE_BYTES = 1 << 18
CACHED_CHUNKS = 1000
PAUSE_NS = 100_000_000
"""Time between two attempts of a watcher to connect."""
CONNECT_S = 2.0
CATCH_UP_S = 30.0
"""Time for all watchers to reach the last revision, once it is known."""


class WatcherOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Watchers of all keys that begin with `prefix` from the first revision on, at the first of `addresses`. The
    receptions of every `sampled`th watcher are recorded."""

    addresses: list[tuple[str, int]]
    watchers: int
    prefix: str
    sampled: int


class _Watcher:
    """A watch. `event` is the revision of the last event, `resume` the last event id; a `headed` watch is served."""

    __slots__ = ("address", "event", "headed", "number", "received", "resume", "socket")

    def __init__(self, number: int, address: tuple[str, int]) -> None:
        self.number = number
        self.address = address
        self.socket: socket.socket | None = None
        self.received = bytearray()
        self.headed = False
        self.event = self.resume = 0


class _EndedError(Exception):
    """The watch does not continue on this connection."""


class WatcherPool:
    """All watchers of the process."""

    def __init__(self, options: WatcherOptions) -> None:
        self._options = options
        self._poll = select.epoll()
        self._open: dict[int, _Watcher] = {}
        self._closed: list[tuple[int, _Watcher]] = []
        self._cached: dict[bytes, int] = {}
        self._chunks: list[EventChunk] = []
        self._counts: list[int] = []
        self._steps: Counter[tuple[int, int]] = Counter()
        self._receptions: list[tuple[int, int]] = []
        self._resumed = self._forgotten = 0
        self._all = [_Watcher(number, options.addresses[0]) for number in range(options.watchers)]
        for watcher in self._all:
            self._connect(watcher)

    @property
    def headed(self) -> int:
        """Number of watchers that are served."""
        return sum(watcher.headed for watcher in self._all)

    def run(self, until: int | None, seconds: float) -> None:
        """Receive for `seconds`, or until all watchers have received the revision `until`."""
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
                self._receive_events(self._open[descriptor], now_ns)

    def observations(self) -> Observations:
        """Return everything that the watchers received."""
        return Observations(
            watchers=len(self._all),
            chunks=self._chunks,
            counts=self._counts,
            steps=[(before, after, count) for (before, after), count in self._steps.items()],
            ends=list(Counter(watcher.event for watcher in self._all).items()),
            receptions=self._receptions,
            resumed=self._resumed,
            forgotten=self._forgotten,
        )

    def _connect(self, watcher: _Watcher) -> None:
        """Open a connection and ask for the events. Raises OSError."""
        opened = socket.create_connection(watcher.address, timeout=CONNECT_S)
        where = f"Last-Event-ID: {watcher.resume}\r\n" if watcher.resume else ""
        first = "" if watcher.resume else "&from_revision=1"
        opened.sendall(
            f"GET /watch?prefix={self._options.prefix}{first} HTTP/1.1\r\nHost: localhost\r\n{where}\r\n".encode()
        )
        opened.setblocking(False)
        watcher.socket, watcher.headed = opened, False
        watcher.received.clear()
        self._open[opened.fileno()] = watcher
        self._poll.register(opened, select.EPOLLIN)

    def _resume(self, watcher: _Watcher) -> None:
        others = [address for address in self._options.addresses if address != watcher.address]
        watcher.address = random.choice(others or [watcher.address])
        try:
            self._connect(watcher)
        except OSError:
            self._closed.append((time.monotonic_ns() + PAUSE_NS, watcher))

    def _receive_events(self, watcher: _Watcher, now_ns: int) -> None:
        opened = watcher.socket
        if opened is None:
            return
        try:
            self._receive(watcher, opened)
            if watcher.headed or self._parse_head(watcher):
                self._parse_chunks(watcher, now_ns)
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

    def _parse_head(self, watcher: _Watcher) -> bool:
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

    def _parse_chunks(self, watcher: _Watcher, now_ns: int) -> None:
        """Parse HTTP chunks; each one is a write of the replica."""
        received, start = watcher.received, 0
        while (line := received.find(b"\r\n", start)) >= 0:
            length = int(received[start:line], 16)
            end = line + 2 + length
            if len(received) < end + 2:
                break
            if not length:
                raise _EndedError
            self._parse_chunk(watcher, bytes(received[line + 2 : end]), now_ns)
            start = end + 2
        del received[:start]

    def _parse_chunk(self, watcher: _Watcher, body: bytes, now_ns: int) -> None:
        number = self._cached.get(body)
        if number is None:
            if len(self._cached) >= CACHED_CHUNKS:
                self._cached.clear()
            number = self._cached[body] = len(self._chunks)
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
            if watcher.number % self._options.sampled == 0:
                self._receptions.append((number, now_ns))


def main() -> None:
    """Read the options, watch and print `ready`; after a line with the last revision print the observations."""
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=WatcherOptions)
    watchers = WatcherPool(options)
    while watchers.headed < options.watchers:
        watchers.run(None, 0.1)
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    input_poll = select.epoll()
    input_poll.register(sys.stdin.buffer, select.EPOLLIN)
    while not input_poll.poll(0):
        watchers.run(None, 0.2)
    watchers.run(int(sys.stdin.buffer.readline()), CATCH_UP_S)
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.msgpack.encode(watchers.observations()))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
