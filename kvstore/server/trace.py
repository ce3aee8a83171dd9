"""A bounded record of the messages and newest slots of a replica, for the live page.

A trace exists only while a page is open. It counts all messages by kind, and keeps the first MOST_MESSAGES after each
read.
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


class TracedMessage(msgspec.Struct, frozen=True):
    """A message that was sent to `peer` or received from it. `says` holds the fields of the message in short form."""

    peer: NodeId
    sent: bool
    kind: str
    says: dict[str, str]


class TracedSlot(msgspec.Struct):
    """A slot of the log, whose `state` is "accepted" or "applied". `commands` counts its commands: 0 for a no-op."""

    slot: Slot
    state: str
    ballot: str
    commands: int
    size_bytes: int


class TraceWindow(msgspec.Struct, frozen=True):
    """The record since the last read: the first `messages`, the `counts` of all by kind, and the newest `slots`."""

    messages: list[TracedMessage]
    counts: dict[str, int]
    slots: list[TracedSlot]


class Trace:
    """The record of the messages and slots of one replica."""

    def __init__(self) -> None:
        self._messages: list[TracedMessage] = []
        self._counts: Counter[str] = Counter()
        self._slots: dict[Slot, TracedSlot] = {}

    def received(self, sender: NodeId, message: AnyMessage) -> None:
        """Record a received message."""
        self._record(sender, message, sent=False)

    def stepped(self, ready: Ready) -> None:
        """Record the effects of one step."""
        self._sent(ready.messages)
        if ready.write is not None:
            for pvalue in ready.write.accepts:
                self._accepted(pvalue)
        for slot, value in ready.chosen:
            traced = self._slots.get(slot)
            if traced is None:
                traced = self._add_slot(slot, "", value)
            traced.state = "applied"

    def take(self) -> TraceWindow:
        """Return the record since the last call, and start a new one."""
        window = TraceWindow(self._messages, dict(self._counts), [self._slots[slot] for slot in sorted(self._slots)])
        self._messages, self._counts = [], Counter()
        return window

    def _sent(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            self._record(envelope.to, envelope.message, sent=True)

    def _record(self, peer: NodeId, message: AnyMessage, *, sent: bool) -> None:
        kind = type(message).__name__
        self._counts[kind] += 1
        if len(self._messages) < MOST_MESSAGES:
            says = {name: _brief(getattr(message, name)) for name in message.__struct_fields__}
            self._messages.append(TracedMessage(peer, sent, kind, says))

    def _accepted(self, pvalue: PValue) -> None:
        self._add_slot(pvalue.slot, str(pvalue.ballot), pvalue.value)

    def _add_slot(self, slot: Slot, ballot: str, value: bytes) -> TracedSlot:
        traced = self._slots[slot] = TracedSlot(slot, "accepted", ballot, _command_count(value), len(value))
        while len(self._slots) > MOST_SLOTS:
            del self._slots[min(self._slots)]
        return traced


def _brief(field: object) -> str:
    """Return a field in short form: a ballot as `round.node`, bytes as their length, a tuple as its length."""
    match field:
        case Ballot():
            return str(field)
        case bytes():
            return f"{len(field):,} bytes"
        case tuple():
            return f"{len(field):,} entries"
        case _:
            return str(field)


def _command_count(value: bytes) -> int:
    try:
        return sum(len(unpack_batch(payload).commands) for payload in unpack(value))
    except msgspec.DecodeError:
        return 0  # a value of another release
