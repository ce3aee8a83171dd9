"""The bytes of an answer, written at once.

aiohttp's own Response builds a dictionary of headers for each answer and costs as much as all the rest of a request
together; the answers of this store have a handful of fixed header lines.
"""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
"""Fields of an answer in JSON."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Answer(web.StreamResponse):
    """One whole answer. `fields`: header lines, each with its CRLF, beside the length, date and connection ones."""

    def __init__(self, status: int, fields: bytes, body: bytes) -> None:
        # The base is not initialised: it would set up the headers and the state that are not used here.
        self._status = status
        self._fields = fields
        self._content = body

    def render(self, connection: bytes = b"", *, body: bool = True) -> bytes:
        """All of it as it goes over the wire. `connection`: a header line about the connection, with its CRLF."""
        head = b"%b%bContent-Length: %d\r\nDate: %b\r\n%b\r\n" % (
            _STATUS_LINES[self._status],
            self._fields,
            len(self._content),
            _date(int(time.time())),
            connection,
        )
        return head + self._content if body else head

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it. Raises ConnectionError when the client is gone or does not take it."""
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            connection = CLOSE
        elif request.version == HttpVersion10:
            connection = b"Connection: keep-alive\r\n"
        else:
            connection = b""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(self.render(connection, body=request.method != "HEAD"))
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


class NotModified(Answer):
    """304: the sender has it. Such an answer has no body, and no length."""

    def __init__(self, fields: bytes) -> None:
        super().__init__(304, fields, b"")

    def render(self, connection: bytes = b"", *, body: bool = True) -> bytes:
        """See Answer."""
        return super().render(connection, body=body).replace(b"Content-Length: 0\r\n", b"", 1)


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
