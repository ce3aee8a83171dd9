"""The body of the request that a connection is receiving: its pieces, its bounds and its timeout."""

import asyncio
from collections.abc import Callable

from kvstore.server.http.body_rules import too_large, too_slow
from kvstore.server.http.dispatcher import Dispatcher, Exchange
from kvstore.server.http.limits import HttpLimits


class IncomingBody:
    """The body of the last request of a connection, while it is incomplete. `on_timeout` is called after the request
    was refused because its body did not arrive in time."""

    def __init__(self, dispatcher: Dispatcher, limits: HttpLimits, on_timeout: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._on_timeout = on_timeout
        self.exchange: Exchange | None = None
        """The request; None while none is incomplete."""
        self._pieces: bytearray | None = None
        """The body, if it arrived in several pieces."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """Bytes that have arrived and are kept."""
        if self.exchange is None:
            return 0
        return len(self.exchange.request.body) if self._pieces is None else len(self._pieces)

    @property
    def is_timed(self) -> bool:
        """True while the timeout of a body runs."""
        return self._timer is not None

    def begin(self, exchange: Exchange) -> None:
        """Begin the body of a request whose head is complete."""
        self.exchange, self._pieces = exchange, None

    def add(self, data: bytes) -> None:
        """Add a piece, or refuse the request if it makes the body too long."""
        exchange = self.exchange
        if exchange is None or not exchange.takes_body:
            return
        request = exchange.request
        if self._pieces is None and not request.body:
            request.body, size = data, len(data)
        else:
            if self._pieces is None:
                self._pieces, request.body = bytearray(request.body), b""
            self._pieces += data
            size = len(self._pieces)
        if size > exchange.max_body_bytes:
            self.drop()
            self._dispatcher.refuse(exchange, too_large(exchange.max_body_bytes))

    def complete(self) -> None:
        """End the body: the request is complete."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        exchange.is_whole = True
        if self._pieces is not None:
            exchange.request.body, self._pieces = bytes(self._pieces), None
        if self._timer is not None:
            self.cancel_timer()
        if exchange.request.body:
            self._dispatcher.hold_body(exchange)

    def drop(self) -> None:
        """Drop the bytes that have arrived."""
        self._pieces = None
        if self.exchange is not None:
            self.exchange.request.body = b""

    def start_timer(self) -> None:
        """Start the timeout of a body that is not complete with its head."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.body_timeout_ms / 1000, self._time_out, self.exchange)

    def cancel_timer(self) -> None:
        """Cancel the timeout."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self, exchange: Exchange | None) -> None:
        if exchange is not None and exchange.response is None:
            self.drop()
            self._dispatcher.refuse(exchange, too_slow(self._limits))
            self._on_timeout()
