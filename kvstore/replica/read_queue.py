"""Reads that need a read index from the leader. One index request serves all waiting reads.

Reads that arrive while an index request is in progress wait for the next one: an index is valid only for reads that
began before the index was requested.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Query
from paxos.types import Count, Time

ReadReply = Callable[[Any], None]
"""Callback for the answer to a read, see `kvstore.server.service.ReplicaService.read`."""


class ReadRequest(msgspec.Struct):
    """A read that waits. `reply` is called once, at `deadline` at the latest."""

    query: Query
    reply: ReadReply
    deadline: Time


class ReadQueue:
    """Waiting reads of one kind, with or without a quorum: those of the index request in progress, and those for the
    next one."""

    def __init__(self) -> None:
        self._requested: deque[ReadRequest] = deque()
        self._queued: deque[ReadRequest] = deque()
        self._token: Count | None = None

    @property
    def waiting(self) -> int:
        """Number of unanswered reads."""
        return len(self._requested) + len(self._queued)

    def add(self, request: ReadRequest) -> None:
        """Queue a read."""
        self._queued.append(request)

    def begin(self, token: Count) -> bool:
        """Begin an index request with `token` for all queued reads. Return False, and do nothing, if no read is queued
        or another index request is in progress."""
        if self._token is not None or not self._queued:
            return False
        self._token = token
        self._requested, self._queued = self._queued, self._requested
        return True

    def indexed(self, token: Count) -> deque[ReadRequest]:
        """End the index request with `token` and return its reads. Return no reads for any other token."""
        if token != self._token:
            return deque()
        self._token = None
        indexed, self._requested = self._requested, deque()
        return indexed

    def expire(self, now: Time) -> Count | None:
        """Refuse the reads whose deadline has passed. If the index request in progress has no reads left, end it and
        return its token."""
        for requests in (self._requested, self._queued):
            while requests and requests[0].deadline <= now:
                requests.popleft().reply(Refused(Reason.NO_LEADER, Outcome.FAILED))
        if self._requested or self._token is None:
            return None
        token, self._token = self._token, None
        return token

    def next_deadline(self) -> Time | None:
        """Return the time at which `expire` has work, or None."""
        requests = self._requested or self._queued
        return requests[0].deadline if requests else None
