"""The order of the requests of one connection.

Up to `MAX_EXCHANGES` reads of keys are in progress at a time. Any other request waits for those before it, and those
after it wait for its response.
"""

from collections import deque

from kvstore.server.http.dispatcher import Dispatcher, Exchange

MAX_EXCHANGES = 32
"""Most requests of one connection in progress."""


class ExchangeQueue:
    """All requests of a connection without a written response, in order."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._exchanges: deque[Exchange] = deque()
        self._begun = 0
        """Number of exchanges, from the first one, that are in progress or have a response."""

    def __len__(self) -> int:
        return len(self._exchanges)

    @property
    def first(self) -> Exchange:
        """The request whose response is written next."""
        return self._exchanges[0]

    @property
    def is_full(self) -> bool:
        """True while no further request may be parsed: there are too many, or the last one must be alone."""
        exchanges = self._exchanges
        if not exchanges:
            return False
        return len(exchanges) >= MAX_EXCHANGES or (exchanges[-1].is_alone and exchanges[-1].is_whole)

    @property
    def is_waiting(self) -> bool:
        """True if there are requests that have not begun."""
        return self._begun < len(self._exchanges)

    def append(self, exchange: Exchange) -> None:
        """Add a request, which may have a response already."""
        self._exchanges.append(exchange)

    def begin(self) -> None:
        """Begin the requests that may be in progress now, in order."""
        exchanges = self._exchanges
        while self._begun < len(exchanges):
            exchange = exchanges[self._begun]
            if exchange.response is None:
                if exchange.takes_body and not exchange.is_whole:
                    return
                if self._begun >= MAX_EXCHANGES or (self._begun and (exchange.is_alone or exchanges[0].is_alone)):
                    return
                self._dispatcher.begin(exchange)
            self._begun += 1

    def take_answered(self) -> Exchange | None:
        """Remove the first request and return it, if it has a response."""
        exchanges = self._exchanges
        if not exchanges or exchanges[0].response is None:
            return None
        self._begun -= 1
        return exchanges.popleft()

    def clear(self) -> None:
        """Drop the requests that have not begun. Those in progress continue without a connection."""
        for exchange in list(self._exchanges)[self._begun :]:
            self._dispatcher.drop(exchange)
        self._exchanges.clear()
        self._begun = 0
