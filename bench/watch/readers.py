"""A process with all watchers: `python -m bench.watch.readers`.

The process reads with plain sockets and one poll, and looks only at the ids of the events, so that a thousand watchers
that receive a gigabyte leave CPU time to the replicas.
"""

import select
import socket
import sys
import time

import msgspec

RECEIVE_BYTES = 1 << 18
CONNECT_S = 10.0
TICK_S = 0.1
"""Interval at which slow watchers read."""
_ID = b"\nid: "
_MAX_ID_BYTES = 32
"""Bytes from the beginning of a line with an id to its end, at most."""


class ReaderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Watchers of all keys from `from_revision` on. Each reads `bytes_per_s`; None is full speed."""

    address: tuple[str, int]
    watchers: int
    from_revision: int
    until_revision: int
    """Revision at which a watcher has caught up."""
    bytes_per_s: int | None


class _WatchSocket:
    """One watcher. `revision` is the last event id that was received completely."""

    __slots__ = ("revision", "socket", "tail")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=CONNECT_S)
        self.tail = b""
        self.revision = 0

    def receive(self, size: int) -> bool:
        """Receive at most `size` bytes. Return False if the replica has ended the watch."""
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.tail = self.tail[-_MAX_ID_BYTES:] + data
        end = self.tail.rfind(b"\n")
        start = self.tail.rfind(_ID, 0, end)
        if start >= 0:
            start += len(_ID)
            self.revision = int(self.tail[start : self.tail.index(b"\n", start)])
        if len(self.tail) > _MAX_ID_BYTES:
            self.tail = self.tail[-_MAX_ID_BYTES:]
        return True


class ReaderPool:
    """All watchers of the process."""

    def __init__(self, options: ReaderOptions) -> None:
        """Connect all watchers. Raises OSError."""
        self._options = options
        self._poll = select.epoll()
        self._readers: dict[int, _WatchSocket] = {}
        self._behind: set[int] = set()
        for _ in range(options.watchers):
            reader = _WatchSocket(options.address)
            number = reader.socket.fileno()
            self._readers[number] = reader
            self._behind.add(number)
            self._poll.register(reader.socket, select.EPOLLIN)
        self.lost = 0
        """Number of watchers that the replica has disconnected."""

    @property
    def behind(self) -> int:
        """Number of watchers that have not caught up."""
        return len(self._behind)

    def begin(self) -> None:
        """Send the request of each watcher."""
        request = (
            f"GET /watch?prefix=&from_revision={self._options.from_revision} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        ).encode()
        for reader in self._readers.values():
            reader.socket.sendall(request)
            reader.socket.setblocking(False)

    def read(self) -> None:
        """Read for one tick at most."""
        limit = self._options.bytes_per_s
        if limit is None:
            for number, _ in self._poll.poll(TICK_S):
                self._receive(number, RECEIVE_BYTES)
            return
        began = time.monotonic()
        if limit:
            for number in list(self._readers):
                self._receive(number, max(1, int(limit * TICK_S)))
        time.sleep(max(0.0, began + TICK_S - time.monotonic()))

    def _receive(self, number: int, size: int) -> None:
        reader = self._readers[number]
        if not reader.receive(size):
            self._poll.unregister(number)
            reader.socket.close()
            del self._readers[number]
            self.lost += 1
        elif reader.revision >= self._options.until_revision:
            self._behind.discard(number)


def main() -> None:
    """Read the options, connect and print `connected`; after a line, watch, and print `caught up` once all have. At the
    end of the input, print the number of watchers that were disconnected."""
    readers = ReaderPool(msgspec.json.decode(sys.stdin.buffer.readline(), type=ReaderOptions))
    print("connected", flush=True)
    sys.stdin.buffer.readline()
    readers.begin()
    input_poll = select.epoll()
    input_poll.register(sys.stdin.buffer, select.EPOLLIN)
    has_told = False
    while not input_poll.poll(0):
        readers.read()
        if not has_told and not readers.behind:
            has_told = True
            print("caught up", flush=True)
    print(readers.lost, flush=True)


if __name__ == "__main__":
    main()
