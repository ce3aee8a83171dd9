"""Where the roles put what shall happen; the replica hands it to the host as one Ready."""

from paxos.messages import AnyMessage
from paxos.ready import Envelope, ReadReady, Ready, ServeFetch, Write
from paxos.types import Ballot, NodeId, PValue, Slot


class Outbox:
    """Collects the work of one step. Nothing is done here."""

    def __init__(self) -> None:
        self._ready = Ready()
        self._write = Write()

    def send(self, to: NodeId, message: AnyMessage) -> None:
        """A message that carries no vote and rests on nothing undurable."""
        self._ready.messages.append(Envelope(to, message))

    def vote(self, to: NodeId, message: AnyMessage) -> None:
        """A message that leaves when all that was recorded up to now is durable (rule 1)."""
        self._write.votes.append(Envelope(to, message))

    def promise(self, ballot: Ballot) -> None:
        """Record a promise."""
        self._write.promise = ballot

    def accept(self, pvalue: PValue) -> None:
        """Record an accepted value."""
        self._write.accepts.append(pvalue)

    def choose(self, slot: Slot, value: bytes) -> None:
        """Have the value of the next slot applied, and the new chosen prefix remembered with the next write."""
        self._ready.chosen.append((slot, value))
        self._write.chosen = slot

    def skip_to(self, slot: Slot) -> None:
        """Have a chosen prefix remembered that was not reached slot by slot."""
        self._write.chosen = slot

    def answer_read(self, token: int, slot: Slot, confirmed_by: str) -> None:
        """Let the host answer the reads under `token`."""
        self._ready.reads.append(ReadReady(token, slot, confirmed_by))

    def serve_fetch(self, to: NodeId, from_slot: Slot, upto: Slot) -> None:
        """Let the host send chosen slots out of storage."""
        self._ready.fetches.append(ServeFetch(to, from_slot, upto))

    def take(self) -> Ready:
        """All that was collected. A chosen prefix alone is not worth a transaction: it waits for the next record, and
        after a crash a leader tells it again."""
        ready, write = self._ready, self._write
        self._ready = Ready()
        if write.promise is not None or write.accepts or write.votes:
            ready.write = write
            self._write = Write()
        return ready
