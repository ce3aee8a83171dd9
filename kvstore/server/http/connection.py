"""The connection of a client: bytes in, requests in order, responses out.

    data_received -> RequestReader -> head_received    -> Dispatcher.admit
                                   -> body_received    -> IncomingBody
                                   -> request_received -> ExchangeQueue -> Dispatcher.begin
    answered      -> ResponseWriter: writes the responses that are ready, up to the first one that is not

While the queue is full, or the client does not read its responses, the connection is not read.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import cast

from kvstore.server.http.dispatcher import Dispatcher
from kvstore.server.http.exchange_queue import ExchangeQueue
from kvstore.server.http.incoming_body import IncomingBody
from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.problems import Problem
from kvstore.server.http.received_bytes import evicted
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_reader import MalformedRequestError, RequestReader, malformed
from kvstore.server.http.response_writer import ResponseWriter

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
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._queue = ExchangeQueue(dispatcher)
        self._writer = ResponseWriter(self, self._queue, stopping)
        self._body = IncomingBody(dispatcher, limits, self._advance)
        self._reader = RequestReader(self, self._writer)
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        """Bytes that were received and are not parsed yet; the connection is not read then."""
        self._is_reading = True
        self._ignores_input = False
        """True when all further bytes are discarded: the last request was received."""
        self._has_partial = False
        """True while bytes of an incomplete request are counted in ReceivedBytes."""
        self._idle_timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = self._writer.transport = cast("asyncio.Transport", transport)
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
        if self._body.exchange is not None:
            self._refuse_rest(malformed("the body ends early"))
        elif self._reader.is_within_head and not self._ignores_input:
            self._refuse_rest(malformed("the head ends early: an empty line ends it"))
        self._writer.client_closes()
        self._advance()
        return bool(self._queue)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writer.pause()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writer.resume()
        if not self._writer.has_ended:
            self._advance()
            self._resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """See asyncio.Protocol. Requests in progress continue."""
        self._transport, self._ignores_input, self._unread = None, True, b""
        self._body.cancel_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._count_partial(0)
        self._queue.clear()
        self._writer.lost()
        self._on_lost(self)

    # RequestReceiver

    def head_received(self, request: HttpRequest) -> None:
        """See RequestReceiver."""
        exchange = self._dispatcher.admit(self, request)
        self._writer.active_at = exchange.started
        self._queue.append(exchange)
        self._body.begin(exchange)

    def body_received(self, data: bytes) -> None:
        """See RequestReceiver."""
        self._body.add(data)

    def request_received(self) -> None:
        """See RequestReceiver."""
        if self._has_partial:
            self._count_partial(0)
        self._writer.continuing = None
        self._body.complete()

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
            start += _PIECE_BYTES
            try:
                self._reader.feed(piece)
            except MalformedRequestError as error:
                self._refuse_rest(error.problem)
                break
        partial = len(self._unread) + self._reader.held
        if self._body.exchange is not None:
            self._wait_for_body()
            partial += self._body.size
        if partial or self._has_partial:
            self._count_partial(partial)
        self._advance()
        if self._unread and not self._is_full:  # no reply will come: all requests so far were refused
            self._loop.call_soon(self._resume_reading)

    @property
    def _is_full(self) -> bool:
        """True while nothing is to be parsed: too many requests, one that must be alone, or a client that is behind."""
        return self._queue.is_full or self._writer.is_behind

    def _wait_for_body(self) -> None:
        exchange = self._body.exchange
        if exchange is not None and exchange.takes_body and not self._body.is_timed:
            self._body.start_timer()
            if b"expect" in exchange.request.headers and exchange.request.version != "1.0":
                self._writer.continuing = exchange

    def _refuse_rest(self, problem: Problem) -> None:
        """Accept no more requests: the bytes are no request, end in the middle of one, or take too much memory."""
        self._ignores_input, self._unread = True, b""
        self._reader.forget()
        exchange = self._body.exchange
        if exchange is None:
            self._writer.final_response = self._dispatcher.refuse_bytes(problem)
        elif exchange.takes_body:
            self._body.drop()
            self._dispatcher.refuse(exchange, problem)

    def _count_partial(self, size: int) -> None:
        self._has_partial = size > 0
        self._dispatcher.received.set_partial(self, size)

    def evict(self) -> None:
        """See PartialRequest."""
        self._has_partial = False
        self._refuse_rest(evicted(self._limits.max_received_bytes))
        self._advance()

    # Responses

    def answered(self) -> None:
        """See ExchangeOwner."""
        if self._transport is not None:
            self._advance()
            self._resume_reading()

    def _advance(self) -> None:
        """Begin requests and write responses until neither is possible."""
        while True:
            if self._queue.is_waiting and not self._writer.is_behind:
                self._queue.begin()
            if not self._writer.write_ready():
                return

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

    # The end

    @property
    def has_unread(self) -> bool:
        """See WriterOwner."""
        return bool(self._unread) or self._reader.has_surplus

    def discard_input(self) -> None:
        """See WriterOwner."""
        self._ignores_input, self._unread = True, b""
        if self._has_partial:
            self._count_partial(0)
        if not self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close the connection at once."""
        self._writer.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless it has a request, whose response will end it."""
        if not self._queue and not self._ignores_input:
            self._writer.close()

    def _close_idle(self) -> None:
        """Close the connection if it was idle for too long; otherwise check again later."""
        timeout_s = self._limits.keepalive_timeout_ms / 1000
        left_s = timeout_s if self._queue else self._writer.active_at + timeout_s - perf_counter()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._close_idle)
        elif not self._ignores_input:
            self._writer.close()
