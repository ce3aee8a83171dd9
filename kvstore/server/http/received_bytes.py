"""The bytes of requests that a replica holds in memory: their bound over all connections.

    incomplete requests (partial bodies, partial heads, bytes behind a request that is not answered yet)
  + bodies of complete requests without a response
 <= HttpLimits.max_received_bytes

Bytes are counted as they arrive, not as they are announced: a head without a body takes no room. When the bound is
reached, the oldest incomplete request is refused, so that slow clients make room for the others.
"""

from typing import Protocol

from kvstore.server.http.problems import OVERLOADED, RETRY_AFTER, Problem


class PartialRequest(Protocol):
    """A connection with a request that is incomplete."""

    def evict(self) -> None:
        """Drop the bytes of the incomplete request, and refuse it. Its bytes are no longer counted."""


class ReceivedBytes:
    """Counter of the bytes of all requests in memory, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._partial: dict[PartialRequest, int] = {}
        """Bytes of incomplete requests, the oldest request first."""

    def set_partial(self, owner: PartialRequest, size: int) -> None:
        """Count `size` bytes for the incomplete request of `owner`; 0 if it is complete, or dropped."""
        self.used += size - self._partial.get(owner, 0)
        if size:
            self._partial[owner] = size
            self._make_room()
        else:
            self._partial.pop(owner, None)

    def take(self, size: int) -> None:
        """Count the body of a complete request. Raises Problem if that exceeds the bound."""
        self.used += size
        if self.used <= self.most:
            return
        self._make_room()
        if self.used > self.most:
            self.used -= size
            raise Problem(OVERLOADED, f"{_held(self.most)} Try again more slowly.", fields=RETRY_AFTER)

    def give_back(self, size: int) -> None:
        """Count `size` bytes of a complete request no longer."""
        self.used -= size

    def _make_room(self) -> None:
        while self.used > self.most and self._partial:
            oldest = next(iter(self._partial))
            self.used -= self._partial.pop(oldest)
            oldest.evict()


def evicted(limit: int) -> Problem:
    """Return 429 for an incomplete request that made room for others."""
    detail = f"{_held(limit)} Of the incomplete requests this one is the oldest. Send it again, all of it at once."
    return Problem(OVERLOADED, detail, fields=RETRY_AFTER)


def _held(limit: int) -> str:
    return f"This replica holds {limit} bytes of requests without a response, its limit."
