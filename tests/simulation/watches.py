"""Clients that watch a simulated cluster: the pages of events that the feed of a replica would send them, each compared
with the log."""

from typing import Any

import msgspec

from kvstore.api.json.documents import event_document
from kvstore.api.key_range import EVERY_KEY, Span, starting_with
from kvstore.replica.node import Node
from kvstore.server.http import event_pages
from kvstore.server.http.event_pages import EventPage, EventPages, encode_page
from kvstore.server.http.response import encode
from kvstore.state_machine.history import History
from storage.base import end_of, revision_of
from tests.simulation.checkers import Safety
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine
from tests.simulation.model import ModelChange
from tests.simulation.states import check_history
from tests.simulation.steps import replaced

SPANS = (
    EVERY_KEY,
    starting_with(b"k"),
    starting_with(b"l"),
    starting_with(b"w"),
    Span(b"k0", b"k0\0"),
    Span(b"w0007", b"w0007\0"),
)
PAUSES_MS = (4, 40, 40, 1500)
"""Longest time in which a watcher, a quick one or a slow one, takes no page."""
MOVES = 0.02
"""Probability that a watcher turns to another replica instead of taking a page."""


class WatchCount(msgspec.Struct):
    """What watchers saw."""

    events: int = 0
    compacted: int = 0
    """Watches that were told that their events are compacted."""
    inside: int = 0
    """Pages that began inside a revision."""


class WatchedReplica:
    """The part of a replica that its pages of events use."""

    def __init__(self, node: Node) -> None:
        self._node = node
        replica: Any = self
        self.pages = EventPages(replica)

    @property
    def history(self) -> History:
        """See ReplicaService."""
        return self._node.machine.history

    @property
    def position(self) -> int:
        """See ReplicaService."""
        return self._node.machine.shown_position


class SimulatedWatch:
    """One client that watches a range, at one replica after the other. It continues after the last id that it saw."""

    def __init__(self, cluster: SimulatedCluster, safety: Safety, name: str, count: WatchCount) -> None:
        self._cluster = cluster
        self._reference = safety.reference
        self._rng = cluster.scenario.rng(f"watch/{name}")
        self._count = count
        self._span = self._rng.choice(SPANS)
        self._pause_ms = self._rng.choice(PAUSES_MS)
        small = {"MAX_SCANNED": 7, "FRAME_BYTES": 300, "BLOCK_REVISIONS": 4}
        self._constants = small if self._rng.random() < 0.5 else {}
        self._machine = self._rng.choice(list(cluster.machines.values()))
        self._life = 0
        self._replica: WatchedReplica | None = None
        self._position = 0
        self._last_id: int | None = None
        self._owed = 0
        """Revision of the last event, 0 once the id of that revision has come."""
        self.stopped = False
        self._wait()

    def _wait(self) -> None:
        self._cluster.world.between_ms(self._rng, (0.1, self._pause_ms), self._act)

    def _act(self) -> None:
        if not self.stopped:
            self.take()
            self._wait()

    def finish(self, machine: SimulatedMachine) -> None:
        """Take all events that there are, at `machine`, which has applied the whole log."""
        self._leave(machine)
        end = self._reference.state(self._reference.applied).position
        for _ in range(10 + len(self._reference.model.changes)):
            if self.take():
                assert self._position >= end, "a watch ends before the log"
                return
        raise AssertionError("a watch never comes to the end of the log")

    def take(self) -> bool:
        """Take a page, if there is a replica that has one. Return True at the end of what there is."""
        machine = self._machine
        if machine.node is None or machine.life != self._life or (self._rng.random() < MOVES and not self.stopped):
            self._leave(machine if self.stopped else self._rng.choice(list(self._cluster.machines.values())))
        node = self._machine.node
        if node is None or self._machine.paused or node.view.refuses is not None:
            return False
        if self._replica is None and not self._connect(node):
            return False
        assert self._replica is not None
        with replaced((event_pages, name, value) for name, value in self._constants.items()):
            return self._take(node, self._replica)

    def _leave(self, machine: SimulatedMachine) -> None:
        """Turn to another replica, or to the next process of this one."""
        self._machine, self._life, self._replica = machine, machine.life, None

    def _connect(self, node: Node) -> bool:
        """Begin after the last id, or where it likes, as `kvstore.server.http.watch` lets it."""
        newest, oldest = node.machine.shown_revision, node.machine.history.oldest
        begins = (newest, newest, self._rng.randint(oldest, newest), self._rng.randint(0, newest))
        last = self._last_id if self._last_id is not None else self._rng.choice(begins)
        if last > newest:
            return False  # the replica lags
        if last < oldest:
            self._lose()
            return False
        self._replica, self._position, self._last_id, self._owed = WatchedReplica(node), end_of(last), last, 0
        return True

    def _lose(self) -> None:
        """Begin again, as a client does that lists the keys."""
        self._count.compacted += 1
        self._replica, self._last_id = None, None

    def _take(self, node: Node, replica: WatchedReplica) -> bool:
        if self.stopped or self._rng.random() < 0.5:
            replica.pages.fresh = replica.position
        page, history = replica.pages.after(self._span, self._position), node.machine.history
        if page is None:
            assert self._position < history.compacted, "a watch is told that events are compacted, and they are not"
            self._lose()
            return False
        assert self._position <= page.end, "a page of events goes back"
        assert page.end <= max(self._position, replica.position), "a page of events shows what nobody may see yet"
        assert page.is_open or page.end > self._position, "a page that is not the last one has no end"
        if self._position >= history.compacted:
            check_history(node, self._reference, self._position, page.end)
            again = encode_page(history, replica.position, self._span, self._position)
            assert page.is_open or page == again, "the page that follows a position is encoded in two ways"
        self._read(page)
        self._position = page.end
        return page.is_open and page.end >= replica.position

    def _read(self, page: EventPage) -> None:
        """Every event of the page is that of the log, and each id tells the truth."""
        model = self._reference.model
        expected = model.changes_after(self._position, page.end, self._span)
        before = model.changes_after(end_of(revision_of(self._position) - 1), self._position) if self._position else []
        self._count.events += len(expected)
        self._count.inside += bool(before and expected and _revision(before[-1]) == _revision(expected[0]))
        at, events = self._position, iter(expected)
        for block in b"".join(page.frames).split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            if b"event" in fields:
                change = next(events, None)
                assert change is not None, f"a watch is sent {block!r}, which is not in the log"
                sent, wanted = (fields[b"event"], fields[b"data"]), _event(change)
                assert sent == wanted, f"a watch is sent {sent}, and the log says {wanted}"
                at, self._owed = change.position, _revision(change)
            if b"id" in fields:
                self._identify(int(fields[b"id"]), at)
        missed = next(events, None)
        assert missed is None, f"a watch from position {self._position} misses {missed}"
        assert not (page.is_open and self._owed), f"the last event of revision {self._owed} has no id"

    def _identify(self, revision: int, at: int) -> None:
        """A client that continues after `revision`, sent behind the event at position `at`, misses nothing."""
        assert self._last_id is None or revision > self._last_id, f"id {revision} follows {self._last_id}"
        skipped = self._reference.model.changes_after(at, end_of(revision), self._span)
        assert not skipped, f"id {revision} comes before {skipped[0]}"
        assert revision <= revision_of(at), f"id {revision} comes behind an event at {at}"
        self._last_id = revision
        self._owed = 0 if revision >= self._owed else self._owed


def _revision(change: ModelChange) -> int:
    return revision_of(change.position)


def _event(change: ModelChange) -> tuple[bytes, bytes]:
    kind = b"put" if change.record is not None else b"delete"
    return kind, encode(event_document(change.key, change.record, _revision(change)))
