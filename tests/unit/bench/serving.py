"""A server of this process that answers like a replica, as far as the load generator parses."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[str, str, bytes], bytes]


def response(status: int, body: bytes = b"", *fields: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *fields])
    return head.encode() + b"\r\n\r\n" + body


class RecordingStore:
    """Puts and gets, one at a time; `seen` is every request, as method, path and body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self._records: dict[str, tuple[int, bytes]] = {}
        self._revision = 0
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        with self._lock:
            self.seen.append((method, path, body))
            if method == "POST":
                return response(200, b"{}")
            if method == "PUT":
                self._revision += 1
                self._records[path] = self._revision, body
                return response(200, b"{}", f'ETag: "{self._revision}"')
            if path not in self._records:
                return response(404, b'{"type":"urn:kvstore:problem:no-such-key","status":404}')
            revision, value = self._records[path]
            return response(200, value, f'ETag: "{revision}"')


@contextmanager
def served(answer: Answer, piece: int = 1 << 20) -> Iterator[tuple[str, int]]:
    """The address of a server that gives these answers, in pieces of so many bytes; an empty one closes the
    connection, as one with `Connection: close` does."""
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=_serve, args=(connection, answer, piece))
            threads.append(thread)
            thread.start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield server.getsockname()
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def _serve(connection: socket.socket, answer: Answer, piece: int) -> None:
    received = b""
    text = b""
    with connection, suppress(ConnectionError):
        while b"Connection: close" not in text:
            while b"\r\n\r\n" not in received:
                received += _received(connection)
            head, _, received = received.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            length = sum(int(line[16:]) for line in lines if line.startswith("Content-Length: "))
            while len(received) < length:
                received += _received(connection)
            body, received = received[:length], received[length:]
            method, path, _ = lines[0].split(" ")
            text = answer(method, path, body)
            if not text:
                return
            for start in range(0, len(text), piece):
                connection.sendall(text[start : start + piece])


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionResetError
    return data
