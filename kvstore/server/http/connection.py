"""The connection of a client: requests in, responses out in the same order, and the bounds of both.

    data_received -> RequestReader -> head_received    -> Dispatcher.admit
                                   -> request_received -> waits for its turn -> Dispatcher.begin
    answered      -> writes the responses that are ready, up to the first one that is not

Up to `MAX_EXCHANGES` reads of keys are in progress at a time. Any other request waits for those before it, and those
after it wait for its response. While this bound is reached, or the client does not read, the connection is not read.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import cast

from kvstore.server.http.body_rules import too_large, too_slow
from kvstore.server.http.dispatcher import Dispatcher, Exchange, malformed
from kvstore.server.http.limits import HttpLimits, bound_unsent
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_reader import MalformedRequestError, RequestReader
from kvstore.server.http.response import CLOSE, CONTINUE, KEEP_ALIVE, HttpResponse, stream_head

LINGERING_S = 2.0
"""Time after the last response for which the connection is read, and what comes is discarded. To close a connection
with unread bytes would reset it, before the client has read the response (RFC 9112, 9.6)."""

CLIENT_READ_TIMEOUT_S = 30.0
"""Time after which a client that does not read its responses is disconnected: the responses occupy memory."""

MAX_EXCHANGES = 32
"""Most requests of one connection in progress."""

_PIECE_BYTES = 16 * 1024
"""Bytes that are parsed at a time, which bounds the requests that wait for those before them."""


class HttpConnection(asyncio.Protocol):
    """The server's end of a connection. `on_lost` is called when the connection is closed."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        limits: HttpLimits,
        *,
        stopping: Callable[[], bool],
        on_lost: Callable[["HttpConnection"], None],
    ) -> None:
        """`stopping` returns True while the front end is shutting down: a response then ends its connection."""
        self._dispatcher = dispatcher
        self._limits = limits
        self._stopping = stopping
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(self, self)
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        """Bytes that were received and are not parsed yet; the connection is not read then."""
        self._is_reading = True
        self._ignores_input = False
        """True when all further bytes are discarded: the last request was received."""
        self._has_ended = False
        """True once the last response is written, or the connection is closed."""
        self._client_closed = False
        """True once the client has closed its side of the connection."""
        self._exchanges: deque[Exchange] = deque()
        """All requests without a written response, in order."""
        self._begun = 0
        """Number of exchanges, from the first one, that are in progress or have a response."""
        self._receiving: Exchange | None = None
        """The last exchange, while its body is incomplete."""
        self._body: bytearray | None = None
        """The body of that exchange, if it arrived in several pieces."""
        self._continuing: Exchange | None = None
        """The exchange whose client waits for 100 Continue before it sends the body."""
        self._malformed_response: HttpResponse | None = None
        """The response to bytes that are not HTTP, which is the last one."""
        self._writable: asyncio.Future[None] | None = None
        """Future that is done when the client has read its responses; None while more may be written."""
        self._streaming: bool | None = None
        """True while an endless stream is sent, False while another stream is, None otherwise."""
        self._active_at = perf_counter()
        """Time of the last head or response."""
        self._idle_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        """Timer that closes the connection of a client that does not read, or sends more after the last response."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._idle_timer = self._loop.call_later(self._limits.keepalive_timeout_ms / 1000, self._close_idle)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._ignores_input:
            return
        if self._unread:
            self._unread += data
        else:
            self._receive(data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. A client that closes its side may still wait for its responses."""
        self._client_closed = True
        if self._receiving is not None:
            self._stop_receiving("the body ends early")
            self._advance()
        return bool(self._exchanges) and not self._streaming

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable = self._loop.create_future()
        self._start_end_timer(CLIENT_READ_TIMEOUT_S, self.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._wake_writer()
        if self._has_ended:
            return
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._advance()
        self._resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """See asyncio.Protocol. Requests in progress continue."""
        self._transport, self._ignores_input, self._unread = None, True, b""
        for timer in (self._idle_timer, self._body_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        for exchange in list(self._exchanges)[self._begun :]:
            self._dispatcher.drop(exchange)
        self._exchanges.clear()
        self._wake_writer()
        self._on_lost(self)

    # RequestReceiver

    def head_received(self, request: HttpRequest) -> None:
        """See RequestReceiver."""
        exchange = self._dispatcher.admit(self, request)
        self._active_at = exchange.started
        self._exchanges.append(exchange)
        self._receiving, self._body = exchange, None

    def body_received(self, data: bytes) -> None:
        """See RequestReceiver."""
        exchange = self._receiving
        if exchange is None or not exchange.takes_body:
            return
        request = exchange.request
        if self._body is None and not request.body:
            request.body, size = data, len(data)
        else:
            if self._body is None:
                self._body = bytearray(request.body)
            self._body += data
            size = len(self._body)
        if size > self._limits.max_value_bytes:
            request.body, self._body = b"", None
            self._dispatcher.refuse(exchange, too_large(self._limits))

    def request_received(self) -> None:
        """See RequestReceiver."""
        exchange, self._receiving = self._receiving, None
        if exchange is None:
            return
        exchange.is_whole = True
        if self._body is not None:
            exchange.request.body, self._body = bytes(self._body), None
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = self._continuing = None

    # Requests

    def _receive(self, data: bytes) -> None:
        start, size = 0, len(data)
        while start < size:
            if self._is_full:
                self._unread = data[start:]
                if self._is_reading and self._transport is not None:
                    self._is_reading = False
                    self._transport.pause_reading()
                break
            piece = data if size <= _PIECE_BYTES else data[start : start + _PIECE_BYTES]
            start += len(piece)
            try:
                self._reader.feed(piece)
            except MalformedRequestError as error:
                self._stop_receiving(str(error))
                break
            if self._begun < len(self._exchanges):
                self._begin()
        if self._receiving is not None and self._body_timer is None:
            self._wait_for_body(self._receiving)
        self._advance()
        if self._unread and not self._is_full:  # no reply will come: all requests so far were refused
            self._loop.call_soon(self._resume_reading)

    @property
    def _is_full(self) -> bool:
        """True while nothing is to be parsed: too many requests, one that must be alone, or a client that is behind."""
        exchanges = self._exchanges
        if len(exchanges) >= MAX_EXCHANGES or self._writable is not None:
            return True
        return bool(exchanges) and exchanges[-1].is_alone and exchanges[-1].is_whole

    def _wait_for_body(self, exchange: Exchange) -> None:
        if not exchange.takes_body:
            return
        self._dispatcher.reserve(exchange)
        if exchange.response is not None:
            return
        self._body_timer = self._loop.call_later(self._limits.body_timeout_ms / 1000, self._time_out_body, exchange)
        if b"expect" in exchange.request.headers and exchange.request.version != "1.0":
            self._continuing = exchange

    def _time_out_body(self, exchange: Exchange) -> None:
        if exchange.response is None:
            self._dispatcher.refuse(exchange, too_slow(self._limits))
            self._advance()

    def _stop_receiving(self, cause: str) -> None:
        """Accept no more requests: the bytes are not HTTP, or end in the middle of a request."""
        self._ignores_input, self._unread = True, b""
        exchange = self._receiving
        if exchange is None:
            self._malformed_response = self._dispatcher.malformed(cause)
        elif exchange.takes_body:
            self._dispatcher.refuse(exchange, malformed(cause))

    def _begin(self) -> None:
        """Begin the requests that may be in progress now, in order."""
        exchanges = self._exchanges
        while self._begun < len(exchanges):
            exchange = exchanges[self._begun]
            if exchange.response is None:
                if (exchange.takes_body and not exchange.is_whole) or self._writable is not None:
                    return
                if self._begun >= MAX_EXCHANGES or (self._begun and (exchange.is_alone or exchanges[0].is_alone)):
                    return
                self._dispatcher.begin(exchange)
            self._begun += 1

    # Responses

    def answered(self) -> None:
        """See ExchangeOwner."""
        if self._transport is not None:
            self._advance()
            self._resume_reading()

    def _advance(self) -> None:
        """Begin requests and write responses until neither is possible."""
        while True:
            if self._begun < len(self._exchanges):
                self._begin()
            if not self._write():
                return

    def _write(self) -> bool:
        """Write the responses that are ready until the client is behind. Return True if more requests may begin."""
        transport, exchanges, written = self._transport, self._exchanges, False
        if transport is None:
            return False
        while exchanges and (response := exchanges[0].response) is not None and self._writable is None:
            exchange = exchanges.popleft()
            self._begun -= 1
            written = True
            request, last = exchange.request, self._is_last(exchange)
            if isinstance(response, HttpResponse):
                connection = CLOSE if last else b"" if request.version == "1.1" else KEEP_ALIVE
                transport.write(response.render(connection, body=request.method != "HEAD"))
            self._streaming = None
            if last:
                self._end(transport)
                return False
        if exchanges:
            if exchanges[0] is self._continuing:
                transport.write(CONTINUE)
                self._continuing = None
            return written
        if written:
            self._active_at = perf_counter()
        if self._malformed_response is not None:
            transport.write(self._malformed_response.render(CLOSE))
            self._end(transport)
        return False

    def _is_last(self, exchange: Exchange) -> bool:
        if not exchange.request.keep_alive or not exchange.is_whole:
            return True
        return (self._stopping() or self._client_closed) and not (
            self._exchanges or self._unread or self._malformed_response
        )

    def _resume_reading(self) -> None:
        """Parse the bytes that had to wait, and read the connection again, if that is possible now."""
        if self._is_reading or self._is_full:
            return
        data, self._unread = self._unread, b""
        if data:
            self._receive(data)
        if not self._unread and self._transport is not None:
            self._is_reading = True
            self._transport.resume_reading()

    # Streams, see ClientConnection

    @property
    def is_gone(self) -> bool:
        """See ClientConnection."""
        return self._client_closed or self._transport is None or self._transport.is_closing()

    @property
    def is_behind(self) -> bool:
        """See ClientConnection."""
        return self._writable is not None

    def begin_stream(self, fields: bytes, *, endless: bool) -> None:
        """See ClientConnection."""
        if self._transport is None or (endless and self.is_gone):
            raise ConnectionResetError("the client is gone")
        self._streaming = endless
        bound_unsent(self._transport)
        request = self._exchanges[0].request
        request.keep_alive = request.keep_alive and not self._stopping()
        self._transport.write(stream_head(fields, b"" if request.keep_alive else CLOSE))

    def write(self, chunk: bytes) -> None:
        """See ClientConnection."""
        if chunk and self._transport is not None:  # an empty chunk would end the stream
            self._transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))  # copies no chunk

    async def drain(self) -> None:
        """See ClientConnection."""
        if self._writable is not None:
            await self._writable
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")

    def end_stream(self) -> None:
        """See ClientConnection."""
        if self._transport is not None:
            self._transport.write(b"0\r\n\r\n")

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # The end

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless it has a request, whose response will end it."""
        if not self._exchanges and not self._ignores_input and self._transport is not None:
            self._close(self._transport)

    def _close_idle(self) -> None:
        """Close the connection if it was idle for too long; otherwise check again later."""
        timeout_s = self._limits.keepalive_timeout_ms / 1000
        left_s = timeout_s if self._exchanges else self._active_at + timeout_s - perf_counter()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._close_idle)
        elif not self._ignores_input and self._transport is not None:
            self._close(self._transport)

    def _end(self, transport: asyncio.Transport) -> None:
        """Close the connection after the last response."""
        more_may_come = self._receiving is not None or self._malformed_response is not None or bool(self._unread)
        self._ignores_input, self._has_ended, self._unread = True, True, b""
        if not more_may_come or self._client_closed:
            self._close(transport)
            return
        if transport.can_write_eof():
            transport.write_eof()
        if not self._is_reading:
            self._is_reading = True
            transport.resume_reading()
        self._start_end_timer(LINGERING_S, partial(self._close, transport))

    def _close(self, transport: asyncio.Transport) -> None:
        self._ignores_input, self._has_ended = True, True
        transport.close()
        self._start_end_timer(CLIENT_READ_TIMEOUT_S, self.abort)

    def _start_end_timer(self, seconds: float, end: Callable[[], None]) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = self._loop.call_later(seconds, end)
