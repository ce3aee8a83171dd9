"""A connection of the generator: one request under way at most."""

import socket

from bench.load.wire import length

RECEIVE_BYTES = 1 << 18


class Connection:
    """A connection to a replica at `address`. `operation`, `number` and the instants are those of the request that is
    under way: it was due at `since_ns`, from which its latency counts, and sent at `sent_ns`. Raises OSError."""

    __slots__ = ("_received", "_unsent", "address", "number", "operation", "sent_ns", "since_ns", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socket = socket.create_connection(address, timeout=5.0)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._unsent = b""
        self.operation = 0
        self.number = 0
        self.since_ns = 0
        self.sent_ns = 0

    @property
    def open(self) -> bool:
        """False once the socket was closed on this side."""
        return self.socket.fileno() >= 0

    def send(self, request: bytes) -> bool:
        """Send it; False when part of it is left for `flush`."""
        try:
            sent = self.socket.send(request)
        except BlockingIOError:
            sent = 0
        if sent == len(request):
            return True
        self._unsent = request[sent:]
        return False

    def flush(self) -> bool:
        """Go on sending what is left; True when nothing is."""
        unsent, self._unsent = self._unsent, b""
        return self.send(unsent)

    def receive(self) -> bytes | None:
        """The answer, when it is whole. Raises ConnectionError when the peer has closed, or sent more than that."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError(f"{self.address} closed the connection")
        if self._received:
            data = self._received + data
        expected = length(data)
        if expected == len(data):
            self._received = b""
            return data
        if expected is not None and expected < len(data):
            raise ConnectionAbortedError(f"{self.address} answered more than was asked")
        self._received = data
        return None
