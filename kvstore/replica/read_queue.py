"""Reads that need a read index from the leader. One request for an index serves all reads that wait.

Reads that arrive while a request is under way wait for the next one: an index is valid only for reads that began before
it was requested.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Query
from paxos.types import Count, Time

ReadReply = Callable[[Any], None]
"""Receives the answer to a read, as `kvstore.server.service.ReplicaService.read` describes it."""


class ReadRequest(msgspec.Struct):
    """A query. `reply` is called once, at `deadline` at the latest."""

    query: Query
    reply: ReadReply
    deadline: Time


class ReadQueue:
    """Reads of one kind, quorum or not: those of the index request under way, and those that wait for the next one."""

    def __init__(self) -> None:
        self._requested: deque[ReadRequest] = deque()
        self._queued: deque[ReadRequest] = deque()
        self._token: Count | None = None

    @property
    def waiting(self) -> int:
        """Number of reads that are not answered."""
        return len(self._requested) + len(self._queued)

    def add(self, request: ReadRequest) -> None:
        """Queue a read."""
        self._queued.append(request)

    def begin(self, token: Count) -> bool:
        """Let all queued reads wait for the index under `token`. Return False, and do nothing, when no read is queued
        or another request is under way."""
        if self._token is not None or not self._queued:
            return False
        self._token = token
        self._requested, self._queued = self._queued, self._requested
        return True

    def indexed(self, token: Count) -> deque[ReadRequest]:
        """Return the reads that waited for the index under `token`. Return none for any other token."""
        if token != self._token:
            return deque()
        self._token = None
        indexed, self._requested = self._requested, deque()
        return indexed

    def expire(self, now: Time) -> Count | None:
        """Refuse the reads whose deadline has passed. Return the token under way when no read waits for it any more."""
        for requests in (self._requested, self._queued):
            while requests and requests[0].deadline <= now:
                requests.popleft().reply(Refused(Reason.NO_LEADER, Outcome.FAILED))
        if self._requested or self._token is None:
            return None
        token, self._token = self._token, None
        return token

    def next_deadline(self) -> Time | None:
        """Return the time at which `expire` has something to do."""
        requests = self._requested or self._queued
        return requests[0].deadline if requests else None
