"""One client's connection. A plain request for a key goes the short way; everything else is aiohttp's.

    data_received --> whole and plain, and nothing of aiohttp's before it? --> Turn --> answers in order
                      whole and not plain -----> aiohttp, which answers them in order
                      not whole yet -----------> held, for a moment: most requests come in one or two pieces
                      anything else -----------> aiohttp, with all that follows: it minds limits and slow senders

Answers leave in the order of the requests: while turns are under way nothing is given to aiohttp, and while aiohttp is
busy what comes is given to it, plain or not. So there is never a queue of both kinds.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from yarl import URL

from kvstore.server.http.answer import CLOSE
from kvstore.server.http.head import NotPlainError, scan
from kvstore.server.http.limits import Limits
from kvstore.server.http.problems import MALFORMED, Problem, internal_error
from kvstore.server.http.turns import Turn, Turns

LINGERING_S = 2.0
"""How long what follows an early answer is read and thrown away, so that the client gets to read the answer: closing
on unread bytes would reset the connection under it."""

HOLD_S = 0.2
"""How long the rest of a request is waited for before aiohttp gets what is there."""

TAKE_TIMEOUT_S = 30.0
"""A client that has not taken its answers by then is cut off: it would pin them in memory for ever."""

MAX_TURNS = 32
"""Requests of one connection that are under way at once; those behind them wait in the kernel."""

_log = logging.getLogger(__name__)
_ROOT = URL("/")


class Connection(RequestHandler):
    """`stopping` tells whether every answer is to be the last one. `on_malformed` is called for each answer to a
    request that could not be parsed, `on_lost` at the end."""

    __slots__ = (
        "_blocked",
        "_body",
        "_holding",
        "_limits",
        "_on_lost",
        "_on_malformed",
        "_passing_on",
        "_rest",
        "_stopping",
        "_taking",
        "_turns",
        "_under_way",
    )

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        turns: Turns,
        *,
        stopping: Callable[[], bool],
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
        self._limits = limits
        self._turns = turns
        self._stopping = stopping
        self._on_malformed = on_malformed
        self._on_lost = on_lost
        self._body: StreamReader | None = None
        self._rest = b""
        """Received, and neither begun nor given to aiohttp."""
        self._under_way: deque[Turn] = deque()
        self._passing_on = False
        """True when all that comes is aiohttp's."""
        self._blocked = False
        """True while the kernel holds what comes, until turns end or the client takes answers."""
        self._holding: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def reading(self, body: StreamReader) -> None:
        """`body` is that of the request which is being answered from now on."""
        self._body = body

    def close_if_idle(self) -> None:
        """Close, unless a request is being answered: then its answer ends the connection."""
        if self._rests and not self._under_way:
            self.force_close()

    @property
    def _rests(self) -> bool:
        """True while aiohttp waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._passing_on or not data:  # aiohttp calls it with nothing, to parse what it holds
            self._pass_on(data)
            return
        self._rest = self._rest + data if self._rest else data
        self._advance()

    def _advance(self) -> None:
        """Begin what has come, as far as it may begin now."""
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        data, start = self._rest, 0
        while start < len(data) and not (self._close or self._force_close):
            if len(self._under_way) >= MAX_TURNS or self.writing_paused:
                self._block()
                break
            try:
                found = scan(data, start, self._limits.max_value_bytes)
            except NotPlainError:
                if self._under_way:
                    self._block()
                    break
                self._pass_all_on(data[start:])
                return
            if found is None:
                self._holding = self._loop.call_later(HOLD_S, self._hold_no_longer)
                break
            plain, end = found
            if plain is not None and (self._under_way or (self._rests and not self._stopping())):
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                self._under_way.append(self._turns.begin(self, plain))
            elif self._under_way:
                self._block()
                break
            else:
                self._pass_on(data[start:end])
            start = end
        self._rest = data[start:]

    def _block(self) -> None:
        if not self._blocked and self.transport is not None:
            self._blocked = True
            self.transport.pause_reading()

    def _go_on(self) -> None:
        if self._blocked and not self.writing_paused:
            self._blocked = False
            if self.transport is not None and not (self._reading_paused or self._buffer_paused):  # by aiohttp
                self.transport.resume_reading()
            self._advance()

    def _hold_no_longer(self) -> None:
        self._holding = None
        if self._under_way:
            self._holding = self._loop.call_later(HOLD_S, self._hold_no_longer)
            return
        self._pass_all_on(self._rest)

    def answered(self) -> None:
        """See Asker. Write the answers that are there, up to the first that is not."""
        under_way, transport = self._under_way, self.transport
        while under_way and (answer := under_way[0].answer) is not None:
            under_way.popleft()
            if transport is None:
                continue
            last = not under_way and self._stopping()
            transport.write(answer.render(CLOSE if last else b""))
            if last:
                self.force_close()
                return
        if not under_way:
            self._go_on()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._taking = self._loop.call_later(TAKE_TIMEOUT_S, self._cut_off)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._stop_taking()
        self._go_on()

    def _stop_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _cut_off(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _pass_all_on(self, data: bytes) -> None:
        """This, and whatever comes from now on."""
        self._passing_on, self._rest = True, b""
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Let aiohttp parse. When that fails in the middle of a body, it queues an error but lets the body's reader
        wait.

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
        self._stop_taking()
        if self._holding is not None:
            self._holding.cancel()
        self._break_bodies(ConnectionResetError("the connection was lost"))
        if self._task_handler is not None and self._waiter is not None and self._waiter.done():
            self._task_handler.cancel()  # about to begin a request; aiohttp fails on one without a connection
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
        """Log what aiohttp could not handle, unless the client has left, or the rest of a body that nobody reads is
        broken."""
        if self.transport is not None and not isinstance(kwargs.get("exc_info"), RequestPayloadError):
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
    aiohttp fails on some authorities (`http://xn--/`) at a place where the connection would hang with no answer. So
    would one without any target, which the parser takes after CONNECT."""
    if isinstance(connection, Connection):
        connection.reading(body)
    path: str | None = message.path
    if path is None or not path.startswith("/"):
        message = message._replace(path=path or "", url=_ROOT)
    return web.BaseRequest(message, body, connection, writer, task, asyncio.get_running_loop())
