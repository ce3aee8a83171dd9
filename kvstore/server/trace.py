"""What a replica is doing, for whoever looks on: its messages, and its newest slots.

Nobody looks on most of the time, and then there is no tap. What is kept between two looks is bounded: of the messages
the first few, and how many there were of each kind.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from kvstore.api.commands import unpack_batch
from paxos.messages import AnyMessage
from paxos.ready import Envelope, Ready
from paxos.types import Ballot, NodeId, PValue, Slot, unpack

MOST_MESSAGES = 40
MOST_SLOTS = 48


class Passed(msgspec.Struct, frozen=True):
    """A message, by name and what it says in short. It came from `peer`, or went `there`."""

    peer: NodeId
    there: bool
    kind: str
    says: dict[str, str]


class SlotSeen(msgspec.Struct):
    """A slot of the log: accepted by this replica, or known to be chosen, and then applied. `commands` of clients, 0 of
    a no-op."""

    slot: Slot
    state: str
    ballot: str
    commands: int
    size_bytes: int


class Glimpse(msgspec.Struct, frozen=True):
    """What passed since the last one: `messages` in order, and the `counts` of all by kind. `slots`: the newest, in
    order."""

    messages: list[Passed]
    counts: dict[str, int]
    slots: list[SlotSeen]


class Trace:
    """Told of everything by the runtime."""

    def __init__(self) -> None:
        self._messages: list[Passed] = []
        self._counts: Counter[str] = Counter()
        self._slots: dict[Slot, SlotSeen] = {}

    def received(self, sender: NodeId, message: AnyMessage) -> None:
        """A message has come."""
        self._note(sender, message, there=False)

    def stepped(self, ready: Ready) -> None:
        """The replica has taken a step."""
        self._sent(ready.messages)
        if ready.write is not None:
            for pvalue in ready.write.accepts:
                self._accepted(pvalue)
        for slot, value in ready.chosen:
            seen = self._slots.get(slot)
            if seen is None:
                seen = self._see(slot, "", value)
            seen.state = "applied"

    def take(self) -> Glimpse:
        """What there was."""
        glimpse = Glimpse(self._messages, dict(self._counts), [self._slots[slot] for slot in sorted(self._slots)])
        self._messages, self._counts = [], Counter()
        return glimpse

    def _sent(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            self._note(envelope.to, envelope.message, there=True)

    def _note(self, peer: NodeId, message: AnyMessage, *, there: bool) -> None:
        kind = type(message).__name__
        self._counts[kind] += 1
        if len(self._messages) < MOST_MESSAGES:
            says = {name: _brief(getattr(message, name)) for name in message.__struct_fields__}
            self._messages.append(Passed(peer, there, kind, says))

    def _accepted(self, pvalue: PValue) -> None:
        self._see(pvalue.slot, str(pvalue.ballot), pvalue.value)

    def _see(self, slot: Slot, ballot: str, value: bytes) -> SlotSeen:
        seen = self._slots[slot] = SlotSeen(slot, "accepted", ballot, _commands(value), len(value))
        while len(self._slots) > MOST_SLOTS:
            del self._slots[min(self._slots)]
        return seen


def _brief(field: object) -> str:
    """A ballot as `round.node`, bytes by their length, entries by their number."""
    match field:
        case Ballot():
            return str(field)
        case bytes():
            return f"{len(field):,} bytes"
        case tuple():
            return f"{len(field):,} entries"
        case _:
            return str(field)


def _commands(value: bytes) -> int:
    try:
        return sum(len(unpack_batch(payload).commands) for payload in unpack(value))
    except msgspec.DecodeError:
        return 0  # of another release
