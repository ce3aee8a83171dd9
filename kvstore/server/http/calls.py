"""The two kinds of handlers of a request. A call is created when the head of the request is complete.

Requests of keys and transactions are `ReplicaCall`s: one question to the replica and one reply, without a task. All
other requests are `TaskCall`s.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from kvstore.server.http.response import HttpResponse, StreamedResponse


class ReplicaCall(Protocol):
    """A request that the replica answers with one reply. A connection may have many reads in progress."""

    takes_body: bool
    """False if the body of the request has no meaning and is discarded."""

    def ask(self, reply: Callable[[Any], None]) -> None:
        """Ask the replica, which calls `reply` once. Raises Problem."""

    def response_to(self, reply: Any) -> HttpResponse:
        """Return the response for the replica's reply, which is not an exception. Raises Problem."""


class TaskCall(NamedTuple):
    """A request that a coroutine answers. It is the only request of its connection in progress."""

    handle: Callable[[], Awaitable[HttpResponse | StreamedResponse]]
    """Raises Problem or Refused."""
    takes_body: bool
