"""The stage: actors, the scripted network between them, and a record of all that can be seen.

A message that an actor sends flies until the script delivers or loses it. It flies as the bytes that `paxos.wire` made
of it, and is decoded where it arrives, so whatever the diagram shows went over the wire.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from paxos.lecture.actors import Actor, Acts
from paxos.lecture.sentences import label, sentence
from paxos.messages import Message, Reject
from paxos.types import MS, NodeId, Time
from paxos.wire import decode, encode

A = TypeVar("A", bound=Actor)


class Arrow(msgspec.Struct, frozen=True):
    """A message. `sent`: the row before which it left; `lost`: it did not arrive; `refusal`: it says no; `why`: which
    rule was applied to it."""

    sender: NodeId
    to: NodeId
    label: str
    sent: int
    lost: bool
    refusal: bool
    why: str


class Note(msgspec.Struct, frozen=True):
    """What a process just did."""

    lane: NodeId
    text: str


class Mark(msgspec.Struct, frozen=True):
    """A process dies or stands still, or is back."""

    lane: NodeId
    text: str
    up: bool


class Remark(msgspec.Struct, frozen=True):
    """The lecturer speaks."""

    text: str


Row = Arrow | Note | Mark | Remark


class Flying(msgspec.Struct, frozen=True, eq=False):
    """A message on its way, as bytes. `sent`: the row before which it left."""

    sender: NodeId
    to: NodeId
    data: bytes
    sent: int


class Stage:
    """A scene, as it is played. Time moves only when the script moves it."""

    def __init__(self, title: str, *, timed: bool = False) -> None:
        """`timed`: the diagram shows the time, too."""
        self.title = title
        self.timed = timed
        self.now: Time = 1000 * MS
        self.actors: dict[NodeId, Actor] = {}
        self.rows: list[Row] = []
        self.times: list[Time] = []
        """When each row was."""
        self.counts: dict[str, int] = {}
        """Messages that were sent, by kind."""
        self._flying: list[Flying] = []
        self._down: set[NodeId] = set()
        self.drawing = True

    def cast(self, *actors: A) -> tuple[A, ...]:
        """Give each of these a lane."""
        self.actors |= {actor.name: actor for actor in actors}
        return actors

    @property
    def lanes(self) -> list[NodeId]:
        """From left to right."""
        return list(self.actors)

    def act(self, actor: Actor, acts: Acts) -> None:
        """`actor` has done something of itself."""
        self._take(actor, acts)

    def deliver(
        self,
        kind: type[Message] | None = None,
        *,
        sender: NodeId | None = None,
        to: NodeId | None = None,
        most: int | None = None,
    ) -> None:
        """Let what flies and fits arrive, in the order in which it left; not what it leads to."""
        for flying in list(self._fitting(kind, sender, to))[:most]:
            self._flying.remove(flying)
            self.arrive(flying)

    def lose(
        self, kind: type[Message] | None = None, *, sender: NodeId | None = None, to: NodeId | None = None
    ) -> None:
        """What flies and fits never arrives."""
        for flying in list(self._fitting(kind, sender, to)):
            self._flying.remove(flying)
            self._draw(flying, lost=True, why="It is lost. Its sender may repeat it without harm.")

    def run(self) -> None:
        """Deliver all, and all that follows from it."""
        while self._flying:
            self.deliver(most=1)

    def departed(self) -> list[Flying]:
        """What has left and is to be carried by the script itself, by `arrive`."""
        departed, self._flying = self._flying, []
        return departed

    def wait(self, ms: float) -> None:
        """Time passes."""
        self.now += int(ms * MS)

    def clock(self, number: int) -> str:
        """The time of a row since the first one, where it is to be shown: when it is another than in the row before."""
        if not self.timed or (number > 0 and self.times[number] == self.times[number - 1]):
            return ""
        return f"{(self.times[number] - self.times[0]) / MS:.0f} ms"

    def crash(self, actor: Actor, text: str = "dies") -> None:
        """What is sent to it is lost until it is back."""
        self._down.add(actor.name)
        self._show(Mark(actor.name, text, up=False))

    def back(self, actor: Actor, text: str = "is back") -> None:
        """It goes on."""
        self._down.discard(actor.name)
        self._show(Mark(actor.name, text, up=True))

    def remark(self, text: str) -> None:
        """A line of the lecturer."""
        self._show(Remark(text))

    def note(self, actor: Actor, text: str) -> None:
        """A word on what `actor` is now."""
        self._show(Note(actor.name, text))

    def offstage(self, play: Callable[[], None]) -> None:
        """Have this done without drawing it."""
        self.drawing = False
        play()
        self.drawing = True

    def _fitting(self, kind: type[Message] | None, sender: NodeId | None, to: NodeId | None) -> Iterator[Flying]:
        for flying in self._flying:
            fits = (kind is None or isinstance(decode(flying.data), kind)) and sender in {None, flying.sender}
            if fits and to in {None, flying.to}:
                yield flying

    def _take(self, actor: Actor, acts: Acts) -> None:
        for envelope in acts:
            name = type(envelope.message).__name__
            self.counts[name] = self.counts.get(name, 0) + 1
            self._flying.append(Flying(actor.name, envelope.to, encode(envelope.message), len(self.rows)))
        notes, actor.notes = actor.notes, []
        for note in notes:
            self.note(actor, note)

    def arrive(self, flying: Flying) -> None:
        """It is where it was sent to."""
        if flying.to in self._down:
            self._draw(flying, lost=True, why=f"{flying.to} is not there: it is lost.")
            return
        actor, message = self.actors[flying.to], decode(flying.data)
        acts = actor.receive(flying.sender, message, self.now)
        self._draw(flying, lost=False, why=sentence(actor, flying.sender, message, acts))
        self._take(actor, acts)

    def _draw(self, flying: Flying, *, lost: bool, why: str) -> None:
        message = decode(flying.data)
        refusal = isinstance(message, Reject)
        self._show(Arrow(flying.sender, flying.to, label(message), flying.sent, lost, refusal, why))

    def _show(self, row: Row) -> None:
        if self.drawing:
            self.rows.append(row)
            self.times.append(self.now)
