"""The number of requests in progress, and its bound."""

from collections.abc import Iterator
from contextlib import contextmanager

from kvstore.server.http.problems import OVERLOADED, RETRY_AFTER, Problem


class InFlight:
    """Counter of the requests of keys, transactions, leases and locks in progress on one replica."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0

    def enter(self) -> None:
        """Count one more request, or raise Problem if the limit is reached."""
        if self.count >= self._most:
            detail = f"This replica takes {self._most} requests at a time (max_in_flight). Try again more slowly."
            raise Problem(OVERLOADED, detail, fields=RETRY_AFTER)
        self.count += 1

    def leave(self, count: int = 1) -> None:
        """Count `count` requests as done."""
        self.count -= count

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request for as long as the context lasts. Raises Problem as `enter` does."""
        self.enter()
        try:
            yield
        finally:
            self.leave()
