"""The sending side of a connection, and its end."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from kvstore.server.http.dispatcher import Exchange
from kvstore.server.http.exchange_queue import ExchangeQueue
from kvstore.server.http.limits import bound_unsent
from kvstore.server.http.response import CLOSE, CONTINUE, KEEP_ALIVE, HttpResponse, stream_chunk, stream_head

LINGERING_S = 2.0
"""Time after the last response for which the connection is read, and the bytes are discarded. To close a connection
with unread bytes would reset it, before the client has read the response (RFC 9112, 9.6)."""

CLIENT_READ_TIMEOUT_S = 30.0
"""Time after which a client that does not read its responses is disconnected: the responses occupy memory."""

PROBE_S = 1.0
PROBES = 2
"""Interval and number of the probes that are sent to a client that has closed its side and waits for a response. A
client that has closed all of the connection resets it after the first one, which the second one finds."""

_EVENT_END = b"\n\n"
_COMMENT = b":\n\n"
"""A comment of server-sent events, which clients ignore: all endless streams are such events."""


class WriterOwner(Protocol):
    """The receiving side of the connection."""

    @property
    def has_unread(self) -> bool:
        """True if bytes were received that are not parsed, or are behind the last request."""

    def discard_input(self) -> None:
        """Discard all bytes that were not parsed, and all further ones; but read them."""


class ResponseWriter:
    """The sending side of a connection. It is the ClientConnection of the handlers that send streams."""

    def __init__(self, owner: WriterOwner, queue: ExchangeQueue, stopping: Callable[[], bool]) -> None:
        """`stopping` returns True while the front end is shutting down: a response then ends its connection."""
        self._owner = owner
        self._queue = queue
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.client_closed = False
        """True once the client has closed its side of the connection."""
        self.continuing: Exchange | None = None
        """The exchange whose client waits for 100 Continue before it sends the body."""
        self.final_response: HttpResponse | None = None
        """Response to bytes that are no request, after which the connection ends."""
        self.has_ended = False
        """True once the last response is written, or the connection is closed."""
        self.active_at = perf_counter()
        """Time of the last head or response."""
        self._writable: asyncio.Future[None] | None = None
        """Future that is done when the client has read its responses; None while more may be written."""
        self._streaming: bool | None = None
        """True while an endless stream is sent, False while another stream is, None otherwise."""
        self._is_inside_event = False
        """True if the last chunk of the stream ended within a server-sent event."""
        self._end_timer: asyncio.TimerHandle | None = None
        """Timer that closes the connection of a client that does not read, or goes on to send after the last
        response."""
        self._probe_timer: asyncio.TimerHandle | None = None

    # Responses

    def write_ready(self) -> bool:
        """Write the responses that are ready until the client is behind. Return True if more requests may begin."""
        transport, queue, written = self.transport, self._queue, False
        if transport is None or self.has_ended:
            return False
        while self._writable is None and (exchange := queue.take_answered()) is not None:
            written = True
            request, response, last = exchange.request, exchange.response, self._is_last(exchange)
            if isinstance(response, HttpResponse):
                connection = CLOSE if last else b"" if request.version == "1.1" else KEEP_ALIVE
                transport.write(response.render(connection, body=request.method != "HEAD"))
            self._streaming = None
            if last:
                self._end(transport, lingers=request.keep_alive or not exchange.is_whole)
                return False
        if queue:
            if self.continuing is not None and queue.first is self.continuing:
                transport.write(CONTINUE)
                self.continuing = None
            return written
        if written:
            self.active_at = perf_counter()
        if self.final_response is not None and self._writable is None:
            transport.write(self.final_response.render(CLOSE))
            self._end(transport, lingers=True)
        return False

    def _is_last(self, exchange: Exchange) -> bool:
        if not exchange.request.keep_alive or not exchange.is_whole:
            return True
        return (self._stopping() or self.client_closed) and not (
            self._queue or self._owner.has_unread or self.final_response
        )

    # Streams, see ClientConnection

    @property
    def is_gone(self) -> bool:
        """See ClientConnection."""
        return self.transport is None or self.transport.is_closing()

    @property
    def is_behind(self) -> bool:
        """See ClientConnection."""
        return self._writable is not None

    def begin_stream(self, fields: bytes, *, endless: bool) -> None:
        """See ClientConnection."""
        if self.transport is None:
            raise ConnectionResetError("the client is gone")
        self._streaming = endless
        bound_unsent(self.transport)
        request = self._queue.first.request
        request.keep_alive = request.keep_alive and request.version != "1.0" and not self._stopping()
        self.transport.write(stream_head(fields, b"" if request.keep_alive else CLOSE, request.version))

    def write(self, chunk: bytes) -> None:
        """See ClientConnection."""
        if chunk and self.transport is not None:  # an empty chunk would end the stream
            self.transport.writelines(stream_chunk(chunk, self._queue.first.request.version))
            self._is_inside_event = not chunk.endswith(_EVENT_END)

    async def drain(self) -> None:
        """See ClientConnection."""
        if self._writable is not None:
            await self._writable
        if self.is_gone:
            raise ConnectionResetError("the client is gone")

    def end_stream(self) -> None:
        """See ClientConnection."""
        if self.transport is not None:
            self.transport.writelines(stream_chunk(b"", self._queue.first.request.version))

    # Flow control

    def pause(self) -> None:
        """Write no more responses until the client has read those that are written."""
        self._writable = self._loop.create_future()
        self._start_end_timer(CLIENT_READ_TIMEOUT_S, self.abort)

    def resume(self) -> None:
        """Write responses again."""
        self._wake_writer()
        if not self.has_ended and self._end_timer is not None:
            self._end_timer.cancel()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # The end

    def client_closes(self) -> None:
        """Note that the client has closed its side. It may still read its responses, or be gone: probe it."""
        self.client_closed = True
        if self._queue:
            self._probe_timer = self._loop.call_later(PROBE_S, self._probe, PROBES)

    def _probe(self, left: int) -> None:
        if self.transport is None or self.has_ended or not self._queue:
            return
        if self._streaming:
            if not self._is_inside_event:  # the rest of an event probes the client, too
                self.write(_COMMENT)
        elif self._streaming is None and self._queue.first.request.version == "1.1":
            self.transport.write(CONTINUE)  # clients ignore it before a response, also where they did not expect it
        if left > 1:
            self._probe_timer = self._loop.call_later(PROBE_S, self._probe, left - 1)

    def abort(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection once the client has read its responses."""
        self._owner.discard_input()
        self.has_ended = True
        if self.transport is not None:
            self.transport.close()
            self._start_end_timer(CLIENT_READ_TIMEOUT_S, self.abort)

    def lost(self) -> None:
        """Forget the transport: the connection is closed."""
        self.transport = None
        for timer in (self._end_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self._wake_writer()

    def _end(self, transport: asyncio.Transport, *, lingers: bool) -> None:
        """Close the connection after the last response. `lingers` is False if the client announced its end."""
        lingers = (lingers or self._owner.has_unread) and not self.client_closed
        self._owner.discard_input()
        self.has_ended = True
        if not lingers:
            self.close()
            return
        if transport.can_write_eof():
            transport.write_eof()
        self._start_end_timer(LINGERING_S, self.close)

    def _start_end_timer(self, seconds: float, end: Callable[[], None]) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = self._loop.call_later(seconds, end)
