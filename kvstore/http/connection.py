"""One client's connection: aiohttp's, with its own answers to bytes that are no request."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from yarl import URL

from kvstore.http.limits import Limits
from kvstore.http.problems import MALFORMED, Problem, internal_error

LINGERING_S = 2.0
"""How long what follows an early answer is read and thrown away, so that the client gets to read the answer: closing
on unread bytes would reset the connection under it."""

_log = logging.getLogger(__name__)
_ROOT = URL("/")


class Connection(RequestHandler):
    """`on_malformed` is called for each answer to a request that could not be parsed, `on_lost` at the end."""

    __slots__ = ("_body", "_on_lost", "_on_malformed")

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        on_malformed: Callable[[], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keepalive_timeout_ms / 1000,
            lingering_time=LINGERING_S,
            auto_decompress=False,  # a value is stored byte for byte as it was sent
            access_log=None,  # type: ignore[arg-type]  # documented to turn it off
        )
        self._on_malformed = on_malformed
        self._on_lost = on_lost
        self._body: StreamReader | None = None

    def reading(self, body: StreamReader) -> None:
        """`body` is that of the request which is being answered from now on."""
        self._body = body

    def close_if_idle(self) -> None:
        """Close, unless a request is being answered: then its answer ends the connection."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Parse. When that fails in the middle of a body, aiohttp queues an error but lets the body's reader wait.

        A hostile authority in an absolute target (`http://[]@/`) makes it fail with what is not a parser's error. The
        parser refuses all that follows such a failure: fed once more, it says so in the way that is answered.
        """
        try:
            super().data_received(data)
        except Exception:  # noqa: BLE001  see above
            _log.debug("not HTTP", exc_info=True)
            super().data_received(b"")
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            self._break_bodies(RequestPayloadError("what was sent is not HTTP"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone, so is the rest of every body."""
        self._break_bodies(ConnectionResetError("the connection was lost"))
        super().connection_lost(exc)
        self._on_lost(self)

    def _break_bodies(self, error: Exception) -> None:
        bodies = [body for _, body in self._messages]
        if self._body is not None:
            bodies.append(self._body)
        for body in bodies:
            if not body.is_eof():
                body.set_exception(error)
                body.feed_eof()

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log what aiohttp could not handle, unless it is only that the client has left."""
        if self.transport is not None:
            super().log_exception(*args, **kwargs)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  (aiohttp's signature)
        status: int = 500,  # noqa: ARG002
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """The answer to bytes that are not a request; the connection ends with it."""
        if isinstance(exc, HttpProcessingError):
            self._on_malformed()
            problem = Problem(MALFORMED, f"It could not be read as HTTP: {_advice(exc)}")
        else:
            _log.error("a request failed outside of its handler", exc_info=exc)
            problem = internal_error()
        answer = problem.answer("UNKNOWN")
        answer.force_close()
        return answer


def _advice(error: HttpProcessingError) -> str:
    if isinstance(error, LineTooLong):
        return f"a line is longer than {error.args[1]} bytes. Shorten the URL or the headers."
    cause = next(iter(error.message.splitlines()), "").rstrip(":.")[:200]
    if isinstance(error, InvalidURLError):
        return f"{cause}. Percent-encode every byte of a key but letters, digits and -._~/"
    return f"{cause}. Send valid HTTP/1.1."


def make_request(
    message: RawRequestMessage,
    body: StreamReader,
    connection: RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """A request whose parsed URL is left out when it is not a plain path: only the raw target is ever looked at, and
    aiohttp fails on some authorities (`http://xn--/`) at a place where the connection would hang with no answer."""
    if isinstance(connection, Connection):
        connection.reading(body)
    if not message.path.startswith("/"):
        message = message._replace(url=_ROOT)
    return web.BaseRequest(message, body, connection, writer, task, asyncio.get_running_loop())
