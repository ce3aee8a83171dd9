"""Read index requests of this replica, from the request to the slot that allows an answer.

A replica asks the leader for a read index and answers the reads once its chosen prefix has reached the index. Read
indexes and their batching: Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.4.
"""

import msgspec

from paxos.types import Count, Slot, Time


class IndexRequest(msgspec.Struct):
    """A request for a read index that has not been answered."""

    quorum: bool
    """True if the leader must not trust its lease for this read."""
    send_at: Time
    """Time at which to send the request, for the first time or again."""


class ReadIndexTracker:
    """The reads of this replica that wait for a read index, or for the chosen prefix to reach it. The host identifies a
    read, or several together, by a token."""

    def __init__(self, retry: Time) -> None:
        self._retry = retry
        self._requested: dict[Count, IndexRequest] = {}
        self._indexed: dict[Count, tuple[Slot, str]] = {}

    def begin(self, token: Count, now: Time, *, quorum: bool) -> None:
        """Add a read. The request leaves as soon as a leader is known."""
        self._requested[token] = IndexRequest(quorum, now)

    def forget(self, token: Count) -> None:
        """Drop the read of `token`: its caller no longer waits."""
        self._requested.pop(token, None)
        self._indexed.pop(token, None)

    def leader_changed(self, now: Time) -> None:
        """Send all unanswered requests at once, to the new leader."""
        for request in self._requested.values():
            request.send_at = now

    def due(self, now: Time) -> list[tuple[Count, bool]]:
        """Return the requests to send now: the token, and whether the read needs a quorum."""
        if not self._requested:
            return []
        due = [(token, request) for token, request in self._requested.items() if request.send_at <= now]
        for _, request in due:
            request.send_at = now + self._retry
        return [(token, request.quorum) for token, request in due]

    def index(self, token: Count, slot: Slot, confirmed_by: str = "") -> None:
        """Record the read index `slot` of `token`. If this replica leads, `confirmed_by` is "lease" or "quorum"."""
        request = self._requested.pop(token, None)
        if request is not None:
            self._indexed[token] = (slot, confirmed_by or ("quorum" if request.quorum else "read_index"))

    def reached(self, chosen: Slot) -> list[tuple[Count, Slot, str]]:
        """Return and drop the reads whose index is within the chosen prefix: token, index and confirmation."""
        if not self._indexed:
            return []
        ready = [(token, slot, confirmed_by) for token, (slot, confirmed_by) in self._indexed.items() if slot <= chosen]
        for token, _, _ in ready:
            del self._indexed[token]
        return ready

    def next_deadline(self) -> Time | None:
        """Return the time at which the next request is due, None if there is none."""
        return min(request.send_at for request in self._requested.values()) if self._requested else None
