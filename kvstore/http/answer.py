"""The bytes of an answer, written at once.

aiohttp's own Response builds a dictionary of headers for each answer and costs as much as all the rest of a request
together; the answers of this store have a handful of fixed header lines.
"""

import asyncio
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

TAKE_TIMEOUT_S = 30.0
"""A client that has not taken its answer by then is cut off: it would pin the answer in memory for ever."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Answer(web.StreamResponse):
    """One whole answer. `fields`: header lines, each with its CRLF, beside the length, date and connection ones."""

    def __init__(self, status: int, fields: bytes, body: bytes) -> None:
        # The base is not initialised: it would set up the headers and the state that are not used here.
        self._status = status
        self._fields = fields
        self._content = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it. Raises ConnectionError when the client is gone or does not take it."""
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            connection = b"Connection: close\r\n"
        elif request.version == HttpVersion10:
            connection = b"Connection: keep-alive\r\n"
        else:
            connection = b""
        head = b"%b%bContent-Length: %d\r\nDate: %b\r\n%b\r\n" % (
            _STATUS_LINES[self._status],
            self._fields,
            len(self._content),
            _date(int(time.time())),
            connection,
        )
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(head if request.method == "HEAD" else head + self._content)
        if request.protocol.writing_paused:
            await _drain(request)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


async def _drain(request: web.BaseRequest) -> None:
    try:
        async with asyncio.timeout(TAKE_TIMEOUT_S):
            await request.writer.drain()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client did not take its answer") from None


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
