"""The HTTP/1.1 parser: bytes in, requests out, no I/O. `RequestReader` passes what it finds to a `RequestReceiver`.

httptools (llhttp, the parser of Node.js, in its strict mode) defines the syntax. This module adds the bounds of a head
and the rules that llhttp leaves to its users: exactly one Host, the form of the target, the versions.
"""

import re
from typing import Protocol

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from kvstore.server.http.problems import (
    HEAD_TOO_LARGE,
    MALFORMED,
    TARGET_TOO_LONG,
    UNKNOWN_METHOD,
    UNKNOWN_TRANSFER_CODING,
    UNSUPPORTED_VERSION,
    Problem,
    ProblemKind,
)
from kvstore.server.http.request import ClientConnection, HttpRequest

MAX_LINE_BYTES = 8190
"""Longest request target, and longest header line."""
MAX_FIELDS = 100
"""Most header lines of one request, trailers included."""
MAX_HEAD_BYTES = 64 * 1024
"""Longest head, trailer, or line before a chunk, where it comes in more than one piece."""

_REQUEST_LINE = re.compile(rb"(?:^|\n)([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) [!-~]+ HTTP/1\.[01]\r\n")
_KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH"})
_VISIBLE = re.compile("[!-~]+")
_ABSOLUTE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://"
    r"(?:[^][@/?#]*@)?"
    r"(?:\[[0-9A-Fa-f:.]+\]|[^][@/?#:]+)(?::[0-9]*)?"
    r"(?:[/?#].*)?"
)

_IN_TARGET = ("in url", "Expected HTTP/")
"""Parts of llhttp's messages about a byte that must not be in a request target, or about a space in a target."""


_VERSION_ERRORS = ("Invalid HTTP version", "Pause on PRI/Upgrade")
"""llhttp's messages about another version; the second one is about the first bytes of HTTP/2."""


class MalformedRequestError(Exception):
    """The bytes are not a valid request, or one that is not supported. The bytes after them have no meaning."""

    def __init__(self, cause: str, kind: ProblemKind = MALFORMED) -> None:
        super().__init__(cause)
        self.problem = malformed(cause) if kind is MALFORMED else Problem(kind, f"{cause[:1].upper()}{cause[1:]}.")


def malformed(cause: str) -> Problem:
    """Return 400 for bytes that are not HTTP."""
    return Problem(MALFORMED, f"The bytes on this connection are not valid HTTP/1.1: {cause}.")


class RequestReceiver(Protocol):
    """Receiver of requests, part by part. Its methods must not raise."""

    def head_received(self, request: HttpRequest) -> None:
        """Receive a request whose head is complete."""

    def body_received(self, data: bytes) -> None:
        """Receive a part of the body of that request."""

    def request_received(self) -> None:
        """Receive the end of that request."""


class RequestReader:
    """Parser of the bytes that one connection receives."""

    def __init__(self, receiver: RequestReceiver, client: ClientConnection) -> None:
        self._receiver = receiver
        self._client = client
        self._parser = HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        """Headers of the head that is parsed; after it, the trailers, which are ignored."""
        self._repeated = 0
        """Number of header lines whose name occurred before."""
        self.held = 0
        """Bytes of an incomplete head, or of an incomplete line of a chunked body."""
        self.has_surplus = False
        """True if there were bytes behind a request that ends the connection."""
        self._body_head = b""
        """Head for the second parser of a request for an upgrade, see `_parse_body`; empty if none is needed."""
        self._is_resuming = False
        """True while the second parser parses that head."""
        self._has_ended = False
        """True once a complete request ends the connection: further bytes are ignored."""
        self._ends = False
        """True if the request that is parsed ends the connection."""

    def feed(self, data: bytes) -> None:
        """Parse `data`. Raises MalformedRequestError, after which nothing may be fed."""
        while data:
            if self._has_ended:
                self.has_surplus = True
                return
            self.held += len(data)
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._body_head:
                    self._parse_body()
                continue
            except HttpParserError as error:
                if self._has_ended:
                    self.has_surplus = True
                    return
                raise _malformed(error, data) from None
            if self.held > MAX_HEAD_BYTES:
                cause = f"a head, or a line of a body, is longer than {MAX_HEAD_BYTES} bytes"
                raise MalformedRequestError(cause, HEAD_TOO_LARGE)
            return

    @property
    def is_within_head(self) -> bool:
        """True if a part of a head was fed."""
        return bool(self.held or self._target or self._headers)

    def forget(self) -> None:
        """Drop the bytes of an incomplete head. Nothing may be fed after this."""
        self._target, self._headers, self.held = b"", {}, 0

    def _parse_body(self) -> None:
        """Parse the body of a request for an upgrade with a second parser: httptools ends such a request with its
        head."""
        head, self._body_head = self._body_head, b""
        self._parser, self._is_resuming = HttpRequestParser(self), True
        self._parser.feed_data(head)

    # Called by httptools

    def on_url(self, part: bytes) -> None:
        """See httptools."""
        self._target = self._target + part if self._target else part
        if len(self._target) > MAX_LINE_BYTES:
            cause = f"the request target is longer than {MAX_LINE_BYTES} bytes"
            raise MalformedRequestError(cause, TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if len(name) + len(value) > MAX_LINE_BYTES:
            raise MalformedRequestError(f"a header line is longer than {MAX_LINE_BYTES} bytes", HEAD_TOO_LARGE)
        name, value, headers = name.lower(), value.rstrip(), self._headers
        if name in headers:
            if name == b"host":
                raise MalformedRequestError("there is more than one Host header")
            self._repeated += 1
            value = b"%b, %b" % (headers[name], value)
        headers[name] = value
        if len(headers) + self._repeated > MAX_FIELDS:
            raise MalformedRequestError(f"there are more than {MAX_FIELDS} header lines", HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._is_resuming:
            self._is_resuming, self._target, self._headers = False, b"", {}
            return
        parser, headers, target = self._parser, self._headers, self._target.decode("latin-1")
        self._target, self._headers, self._repeated, self.held = b"", {}, 0, 0
        keep_alive = parser.should_keep_alive()
        if keep_alive and b"connection" in headers and b"close" in _options(headers[b"connection"]):
            keep_alive = False  # RFC 9112, 9.3: also of HTTP/1.0 with keep-alive
        # Without a Connection header only HTTP/1.1 is kept alive; get_http_version formats a string.
        version = "1.1" if keep_alive and b"connection" not in headers else parser.get_http_version()
        method = parser.get_method().decode()
        if version != "1.1" or target[:1] != "/" or b"host" not in headers or b"transfer-encoding" in headers:
            _check(method, target, version, headers)
        if method == "CONNECT":
            keep_alive = False  # the client would take all further bytes for a tunnel
        elif parser.should_upgrade():  # the header Upgrade is ignored
            self._body_head = _head_of_body(headers)
        self._ends = not keep_alive
        request = HttpRequest(self._client, method, target, version, headers)
        request.keep_alive = keep_alive
        self._receiver.head_received(request)

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        self.held = 0
        self._receiver.body_received(data)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._body_head:
            return
        self.held = 0
        self._has_ended = self._ends
        if self._headers:
            self._headers, self._repeated = {}, 0
        self._receiver.request_received()


def _options(connection: bytes) -> list[bytes]:
    """Return the options in a Connection header."""
    return [option.strip() for option in connection.lower().split(b",")]


def _head_of_body(headers: dict[bytes, bytes]) -> bytes:
    """Return a head for a parser that shall parse only the body with these headers; empty if there is no body."""
    for name in (b"content-length", b"transfer-encoding"):
        if name in headers:
            return b"PUT / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, headers[name])
    return b""


def _check(method: str, target: str, version: str, headers: dict[bytes, bytes]) -> None:
    if version not in ("1.1", "1.0"):
        raise MalformedRequestError(f"the version is HTTP/{version}: use HTTP/1.1", UNSUPPORTED_VERSION)
    if version == "1.1":
        if b"host" not in headers:
            raise MalformedRequestError("there is no Host header")
    elif b"transfer-encoding" in headers:
        raise MalformedRequestError("HTTP/1.0 has no Transfer-Encoding")
    codings = headers.get(b"transfer-encoding", b"chunked").lower()
    if not codings.endswith(b"chunked"):
        raise MalformedRequestError("the last transfer coding is not chunked")
    if codings != b"chunked":
        cause = f"the transfer codings are {codings.decode('latin-1')[:80]}: use chunked alone"
        raise MalformedRequestError(cause, UNKNOWN_TRANSFER_CODING)
    if target[:1] == "/":
        return  # llhttp has seen to it that there are visible characters only
    if not _VISIBLE.fullmatch(target):
        raise MalformedRequestError("the request target is empty or has characters that no URL has")
    if target == "*":
        if method != "OPTIONS":
            raise MalformedRequestError("only OPTIONS has the request target *")
    elif method != "CONNECT" and not _ABSOLUTE.fullmatch(target):
        raise MalformedRequestError("the request target is neither a path nor a whole URL")


def _malformed(error: HttpParserError, data: bytes) -> MalformedRequestError:
    """Return the error for `data`, in which httptools found `error`."""
    cause = error.__context__ if isinstance(error, HttpParserCallbackError) else None
    if isinstance(cause, MalformedRequestError):
        return cause
    text = str(error)[:200]
    if isinstance(error, HttpParserInvalidMethodError):
        methods: list[bytes] = _REQUEST_LINE.findall(data)
        unknown = next((method.decode() for method in methods if method not in _KNOWN_METHODS), None)
        if unknown is not None:
            what = f"the method {unknown} is unknown: methods are in capital letters, as in GET"
            return MalformedRequestError(what, UNKNOWN_METHOD)
    if text in _VERSION_ERRORS:
        return MalformedRequestError("the version is not supported: use HTTP/1.1", UNSUPPORTED_VERSION)
    if any(part in text for part in _IN_TARGET):
        text += ". Percent-encode every byte of a key but letters, digits and -._~"
    return MalformedRequestError(text)
