"""Responses as bytes. They are formatted at once, from a few fixed header lines."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import msgspec

CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STREAM = b"Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"
"""Header lines that make proxies pass a stream on at once: one that compresses it, or nginx, would hold it back."""
_JSON = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
encode = msgspec.json.Encoder().encode
"""Function that returns the JSON of a document."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


COPIED_BYTES = 4096
"""Longest chunk of a stream that is copied: one buffer is written faster than three."""


class HttpResponse:
    """A whole response.

    `fields` holds the header lines, each with its CRLF, except Content-Length, Date and Connection.
    """

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: bytes, body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    def render(self, connection: bytes, *, body: bool = True) -> bytes:
        """Return the bytes for the wire. `connection` is a Connection header line with its CRLF, or empty."""
        head = b"%b%bContent-Length: %d\r\nDate: %b\r\n%b\r\n" % (
            _STATUS_LINES[self.status],
            self.fields,
            len(self.body),
            _date(int(time.time())),
            connection,
        )
        return head + self.body if body else head


def json_response(status: int, document: msgspec.Struct, fields: bytes = b"") -> HttpResponse:
    """Return a response with `document` in JSON."""
    return HttpResponse(status, _JSON + fields, encode(document) + b"\n")


def indented_json_response(status: int, document: msgspec.Struct) -> HttpResponse:
    """Return a response with `document` in indented JSON."""
    return HttpResponse(status, _JSON, msgspec.json.format(encode(document), indent=2) + b"\n")


class NotModified(HttpResponse):
    """304 Not Modified, which has neither a body nor a length."""

    __slots__ = ()

    def __init__(self, fields: bytes) -> None:
        super().__init__(304, fields, b"")

    def render(self, connection: bytes, *, body: bool = True) -> bytes:
        """See HttpResponse."""
        return super().render(connection, body=body).replace(b"Content-Length: 0\r\n", b"", 1)


class StreamHead(HttpResponse):
    """The response to HEAD for a stream, whose length is unknown."""

    __slots__ = ()

    def __init__(self, fields: bytes) -> None:
        super().__init__(200, fields, b"")

    def render(self, connection: bytes, *, body: bool = True) -> bytes:
        """See HttpResponse."""
        return super().render(connection, body=body).replace(b"Content-Length: 0\r\n", _STREAM, 1)


class StreamedResponse:
    """A stream that was sent completely. `fields` are its header lines."""

    __slots__ = ("fields",)
    status = 200

    def __init__(self, fields: bytes) -> None:
        self.fields = fields


def stream_head(fields: bytes, connection: bytes, version: str) -> bytes:
    """Return the head of a stream. A stream to HTTP/1.0, which has no chunks, ends with its connection."""
    coding = b"" if version == "1.0" else b"Transfer-Encoding: chunked\r\n"
    date = _date(int(time.time()))
    return b"%b%b%b%bDate: %b\r\n%b\r\n" % (_STATUS_LINES[200], fields, _STREAM, coding, date, connection)


def stream_chunk(chunk: bytes, version: str) -> tuple[bytes, ...]:
    """Return a part of a stream as buffers to write together. The empty chunk is the end of the stream."""
    if version == "1.0":
        return (chunk,)
    if len(chunk) <= COPIED_BYTES:
        return (b"%x\r\n%b\r\n" % (len(chunk), chunk),)
    return b"%x\r\n" % len(chunk), chunk, b"\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
