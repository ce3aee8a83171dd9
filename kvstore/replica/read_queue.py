"""Reads of this replica's clients that need an index from the leader: one question for all that wait.

Reads that arrive while a question is under way wait for the next one: the index of a question is only good for reads
that began before it was asked.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Query
from paxos.types import Count, Time

ReadReply = Callable[[Any], None]
"""Gets what `Replica.read` says."""


class ReadRequest(msgspec.Struct):
    """A question and who waits for the answer; `reply` is called once."""

    query: Query
    reply: ReadReply
    deadline: Time


class ReadQueue:
    """Reads of one kind, quorum or not. Those of the question under way stand before those that wait for the next."""

    def __init__(self) -> None:
        self._asked: deque[ReadRequest] = deque()
        self._queued: deque[ReadRequest] = deque()
        self._token: Count | None = None

    @property
    def waiting(self) -> int:
        """Requests that have not been answered."""
        return len(self._asked) + len(self._queued)

    def add(self, request: ReadRequest) -> None:
        """A new read."""
        self._queued.append(request)

    def ask(self, token: Count) -> bool:
        """Make one question of all that wait, under `token`; False when nothing waits or one is under way."""
        if self._token is not None or not self._queued:
            return False
        self._token = token
        self._asked, self._queued = self._queued, self._asked
        return True

    def answered(self, token: Count) -> deque[ReadRequest]:
        """The reads of the question, which may be answered now; none when it is not the one under way."""
        if token != self._token:
            return deque()
        self._token = None
        answered, self._asked = self._asked, deque()
        return answered

    def expire(self, now: Time) -> Count | None:
        """Fail the reads that waited for long enough. The token of the question under way, if nobody waits for it."""
        for requests in (self._asked, self._queued):
            while requests and requests[0].deadline <= now:
                requests.popleft().reply(Refused(Reason.NO_LEADER, Outcome.FAILED))
        if self._asked or self._token is None:
            return None
        token, self._token = self._token, None
        return token

    def next_deadline(self) -> Time | None:
        """When `expire` has something to do."""
        requests = self._asked or self._queued
        return requests[0].deadline if requests else None
