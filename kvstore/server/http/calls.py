"""The two ways in which a request is handled, as objects that are made when its head is complete.

A request of keys is a `ReplicaCall`: one question to the replica, one answer, and nothing to wait for in between, so it
costs no task. Anything else is a `TaskCall`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from kvstore.server.http.response import HttpResponse, StreamedResponse


class ReplicaCall(Protocol):
    """A request that the replica answers with one reply. Many of one connection may be in progress."""

    takes_body: bool
    """False if the body of the request has no meaning and is thrown away."""

    def ask(self, reply: Callable[[Any], None]) -> None:
        """Ask the replica, which calls `reply` once. Raises Problem."""

    def response_to(self, reply: Any) -> HttpResponse:
        """Return the response for the replica's reply, which is not an exception. Raises Problem."""


class TaskCall(NamedTuple):
    """A request that a coroutine answers; while it is in progress, no other of its connection is."""

    handle: Callable[[], Awaitable[HttpResponse | StreamedResponse]]
    """Raises Problem or Refused."""
    takes_body: bool
