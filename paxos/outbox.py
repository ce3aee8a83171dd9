"""The outbox: the roles add work to it, and the replica passes the work to the host as one Ready."""

from paxos.messages import AnyMessage
from paxos.ready import Envelope, ReadReady, Ready, ServeFetch, Write
from paxos.types import Ballot, NodeId, PValue, Slot


class Outbox:
    """Collector of the work of one step. It performs none of the work."""

    def __init__(self) -> None:
        self._ready = Ready()
        self._write = Write()

    def send(self, to: NodeId, message: AnyMessage) -> None:
        """Add a message that carries no vote and depends on no record, so that it may leave at once (rule 3)."""
        self._ready.messages.append(Envelope(to, message))

    def vote(self, to: NodeId, message: AnyMessage) -> None:
        """Add a message that leaves only when all records so far are durable (rule 1)."""
        self._write.votes.append(Envelope(to, message))

    def promise(self, ballot: Ballot) -> None:
        """Record a promise."""
        self._write.promise = ballot

    def accept(self, pvalue: PValue) -> None:
        """Record an accepted value."""
        self._write.accepts.append(pvalue)

    def choose(self, slot: Slot, value: bytes) -> None:
        """Pass the value of the next chosen slot to the host, and store the new chosen prefix with the next write."""
        self._ready.chosen.append((slot, value))
        self._write.chosen = slot

    def skip_to(self, slot: Slot) -> None:
        """Store a chosen prefix that comes from a snapshot with the next write."""
        self._write.chosen = slot

    def answer_read(self, token: int, slot: Slot, confirmed_by: str) -> None:
        """Tell the host to answer the reads of `token` once it has applied `slot`."""
        self._ready.reads.append(ReadReady(token, slot, confirmed_by))

    def serve_fetch(self, to: NodeId, from_slot: Slot, upto: Slot) -> None:
        """Tell the host to send the chosen slots `from_slot` .. `upto` from storage."""
        self._ready.fetches.append(ServeFetch(to, from_slot, upto))

    def take(self) -> Ready:
        """Return the collected work and forget it.

        A new chosen prefix alone starts no transaction: it waits for the next record. If a crash loses it, a leader
        announces it again.
        """
        ready, write = self._ready, self._write
        self._ready = Ready()
        if write.promise is not None or write.accepts or write.votes:
            ready.write = write
            self._write = Write()
        return ready
