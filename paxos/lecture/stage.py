"""The stage: actors, the scripted network between them, and the rows of the diagram.

A message is in flight until the script delivers or loses it. It is encoded by `paxos.wire` when it is sent and decoded
when it arrives, so every message in a diagram has passed through the wire format.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from paxos.lecture.actors import Actor, Outgoing
from paxos.lecture.sentences import label, sentence
from paxos.messages import Message, Reject
from paxos.types import MS, NodeId, Time
from paxos.wire import decode, encode

A = TypeVar("A", bound=Actor)


class Arrow(msgspec.Struct, frozen=True):
    """A row for a message, at the time of its arrival."""

    sender: NodeId
    to: NodeId
    label: str
    sent: int
    """Row before which the message left."""
    lost: bool
    refusal: bool
    """True for a Reject."""
    why: str
    """Sentence that explains how the receiver processed the message."""


class Note(msgspec.Struct, frozen=True):
    """A row with a remark about a process."""

    lane: NodeId
    text: str


class Mark(msgspec.Struct, frozen=True):
    """A row for a process that crashes or pauses, or continues."""

    lane: NodeId
    text: str
    up: bool
    """True if the process continues."""


class Remark(msgspec.Struct, frozen=True):
    """A row with a comment of the lecturer."""

    text: str


Row = Arrow | Note | Mark | Remark


class Flying(msgspec.Struct, frozen=True, eq=False):
    """An encoded message in flight."""

    sender: NodeId
    to: NodeId
    data: bytes
    sent: int
    """Row before which the message left."""


class Stage:
    """A diagram while it is played. Only the script advances the time."""

    def __init__(self, title: str, *, timed: bool = False) -> None:
        """Create an empty stage. If `timed`, the diagram shows the time."""
        self.title = title
        self.timed = timed
        self.now: Time = 1000 * MS
        self.actors: dict[NodeId, Actor] = {}
        self.rows: list[Row] = []
        self.times: list[Time] = []
        """Time of each row."""
        self.counts: dict[str, int] = {}
        """Number of messages sent, by the name of their class."""
        self._flying: list[Flying] = []
        self._down: set[NodeId] = set()
        self.drawing = True
        """False while events add no rows."""

    def cast(self, *actors: A) -> tuple[A, ...]:
        """Give each actor a lane."""
        self.actors |= {actor.name: actor for actor in actors}
        return actors

    @property
    def lanes(self) -> list[NodeId]:
        """Names of the lanes from left to right."""
        return list(self.actors)

    def act(self, actor: Actor, outgoing: Outgoing) -> None:
        """Send the messages of an event that `actor` started itself."""
        self._take(actor, outgoing)

    def deliver(
        self,
        kind: type[Message] | None = None,
        *,
        sender: NodeId | None = None,
        to: NodeId | None = None,
        most: int | None = None,
    ) -> None:
        """Deliver the matching messages in flight in the order in which they left, at most `most`. The answers to them
        stay in flight."""
        for flying in list(self._matching(kind, sender, to))[:most]:
            self._flying.remove(flying)
            self.arrive(flying)

    def lose(
        self, kind: type[Message] | None = None, *, sender: NodeId | None = None, to: NodeId | None = None
    ) -> None:
        """Lose the matching messages in flight."""
        for flying in list(self._matching(kind, sender, to)):
            self._flying.remove(flying)
            self._draw(flying, lost=True, why="The message is lost. Its sender may send it again without harm.")

    def run(self) -> None:
        """Deliver all messages in flight, and all messages that are sent in answer."""
        while self._flying:
            self.deliver(most=1)

    def departed(self) -> list[Flying]:
        """Return the messages in flight and remove them from the stage: the script passes them to `arrive`."""
        departed, self._flying = self._flying, []
        return departed

    def wait(self, ms: float) -> None:
        """Advance the time by `ms` milliseconds."""
        self.now += int(ms * MS)

    def clock(self, number: int) -> str:
        """Return the time from the first row to row `number`, as text; "" if the row before has the same time."""
        if not self.timed or (number > 0 and self.times[number] == self.times[number - 1]):
            return ""
        return f"{(self.times[number] - self.times[0]) / MS:.0f} ms"

    def crash(self, actor: Actor, text: str = "crashes") -> None:
        """Stop `actor`: messages to it are lost until `back`."""
        self._down.add(actor.name)
        self._show(Mark(actor.name, text, up=False))

    def back(self, actor: Actor, text: str = "is back") -> None:
        """Let `actor` continue."""
        self._down.discard(actor.name)
        self._show(Mark(actor.name, text, up=True))

    def remark(self, text: str) -> None:
        """Add a comment of the lecturer."""
        self._show(Remark(text))

    def note(self, actor: Actor, text: str) -> None:
        """Add a remark about `actor`."""
        self._show(Note(actor.name, text))

    def offstage(self, play: Callable[[], None]) -> None:
        """Play events without adding rows."""
        self.drawing = False
        play()
        self.drawing = True

    def _matching(self, kind: type[Message] | None, sender: NodeId | None, to: NodeId | None) -> Iterator[Flying]:
        for flying in self._flying:
            matches = (kind is None or isinstance(decode(flying.data), kind)) and sender in {None, flying.sender}
            if matches and to in {None, flying.to}:
                yield flying

    def _take(self, actor: Actor, outgoing: Outgoing) -> None:
        for envelope in outgoing:
            name = type(envelope.message).__name__
            self.counts[name] = self.counts.get(name, 0) + 1
            self._flying.append(Flying(actor.name, envelope.to, encode(envelope.message), len(self.rows)))
        notes, actor.notes = actor.notes, []
        for note in notes:
            self.note(actor, note)

    def arrive(self, flying: Flying) -> None:
        """Deliver a message, or lose it if its receiver is down."""
        if flying.to in self._down:
            self._draw(flying, lost=True, why=f"{flying.to} is down: the message is lost.")
            return
        actor, message = self.actors[flying.to], decode(flying.data)
        outgoing = actor.receive(flying.sender, message, self.now)
        self._draw(flying, lost=False, why=sentence(actor, flying.sender, message, outgoing))
        self._take(actor, outgoing)

    def _draw(self, flying: Flying, *, lost: bool, why: str) -> None:
        message = decode(flying.data)
        refusal = isinstance(message, Reject)
        self._show(Arrow(flying.sender, flying.to, label(message), flying.sent, lost, refusal, why))

    def _show(self, row: Row) -> None:
        if self.drawing:
            self.rows.append(row)
            self.times.append(self.now)
