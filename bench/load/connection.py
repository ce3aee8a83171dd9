"""A connection of the generator, with at most one request in flight."""

import socket

from bench.load.wire import length

RECEIVE_BYTES = 1 << 18


class Connection:
    """A connection to the replica at `address`. Its methods raise OSError when it breaks."""

    __slots__ = ("_received", "_unsent", "address", "number", "operation", "sent_ns", "since_ns", "socket")

    operation: int
    """Operation of the request in flight, see `draw`."""
    number: int
    """Number of the request in flight."""
    since_ns: int
    """Time at which the request was due, from which its latency counts."""
    sent_ns: int

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socket = socket.create_connection(address, timeout=5.0)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self._unsent = b""
        self.operation = self.number = self.since_ns = self.sent_ns = 0

    @property
    def open(self) -> bool:
        """Whether the socket has not been closed on this side."""
        return self.socket.fileno() >= 0

    def send(self, request: bytes) -> bool:
        """Send a request; return False when `flush` has to send the rest."""
        try:
            sent = self.socket.send(request)
        except BlockingIOError:
            sent = 0
        self._unsent = request[sent:]
        return not self._unsent

    def flush(self) -> bool:
        """Send the rest of a request; return True when nothing is left."""
        return self.send(self._unsent)

    def receive(self) -> bytes | None:
        """Receive; return a complete answer or None. Raises ConnectionError when the replica closes or sends more."""
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
            raise ConnectionAbortedError(f"{self.address} sent more than one answer to one request")
        self._received = data
        return None
