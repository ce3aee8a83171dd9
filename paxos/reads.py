"""Reads on their confirmed_by to an index: asked for, repeated when a leader is gone, and released when it is reached.

Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.4 describes read indices and their batching.
"""

import msgspec

from paxos.types import Count, Slot, Time


class IndexRequest(msgspec.Struct):
    """A read that has no index yet; `ask_at` is when to request for it (again)."""

    quorum: bool
    ask_at: Time


class ReadIndexTracker:
    """The reads of this replica, by the host's token."""

    def __init__(self, retry: Time) -> None:
        self._retry = retry
        self._asked: dict[Count, IndexRequest] = {}
        self._indexed: dict[Count, tuple[Slot, str]] = {}

    def begin(self, token: Count, now: Time, *, quorum: bool) -> None:
        """A new read; it is asked for when there is a leader."""
        self._asked[token] = IndexRequest(quorum, now)

    def forget(self, token: Count) -> None:
        """Nobody waits any more."""
        self._asked.pop(token, None)
        self._indexed.pop(token, None)

    def leader_changed(self, now: Time) -> None:
        """Whoever was asked is not the leader any more: request again."""
        for request in self._asked.values():
            request.ask_at = now

    def due(self, now: Time) -> list[tuple[Count, bool]]:
        """Tokens, and whether each wants a quorum, to request the leader for now."""
        if not self._asked:
            return []
        due = [(token, request) for token, request in self._asked.items() if request.ask_at <= now]
        for _, request in due:
            request.ask_at = now + self._retry
        return [(token, request.quorum) for token, request in due]

    def index(self, token: Count, slot: Slot, confirmed_by: str = "") -> None:
        """The leader answered: `token` may be read at `slot`. `confirmed_by` is set when the leader is this replica."""
        request = self._asked.pop(token, None)
        if request is not None:
            self._indexed[token] = (slot, confirmed_by or ("quorum" if request.quorum else "read_index"))

    def reached(self, chosen: Slot) -> list[tuple[Count, Slot, str]]:
        """Reads whose index is within the chosen prefix; each is returned once."""
        if not self._indexed:
            return []
        ready = [(token, slot, confirmed_by) for token, (slot, confirmed_by) in self._indexed.items() if slot <= chosen]
        for token, _, _ in ready:
            del self._indexed[token]
        return ready

    def next_deadline(self) -> Time | None:
        """When a question is repeated."""
        return min((request.ask_at for request in self._asked.values()), default=None)
