"""The changes of keys on their way to watchers. They are encoded once for all watchers of the same range.

    replica --- changed ---> WatchFeed --- every few ms ---> a group for each range ---> its watchers, each a connection
                                                                                     |            ^
                                                            slow: leaves the group   v            | up to date again
                                                                              reads the history on its own

A watcher has a position: all events up to it were written to its connection, and none after it.
"""

import asyncio
import time
from collections.abc import Iterable

import msgspec

from kvstore.api.json.documents import event_document
from kvstore.api.key_range import Span
from kvstore.server.http.request import ClientConnection
from kvstore.server.http.response import encode
from kvstore.server.service import ReplicaService
from kvstore.state_machine.history import KeyChange
from storage.base import revision_of

PAUSE_S = 0.01
PAUSE_ROUNDS = 2
"""Pause between two rounds to the watchers, so that the changes of that time are sent together: PAUSE_S, or
PAUSE_ROUNDS times the length of a round, if that is longer."""
PROGRESS_S = 10.0
"""Interval in which an idle watch is told the present revision, from which a client can resume."""
REPLAY_EVENTS = 500
REPLAY_BYTES = 256 * 1024
"""Bounds of one piece of the history that is sent to a watcher."""


class Watcher:
    """A client that watches a range."""

    def __init__(self, span: Span, position: int, client: ClientConnection) -> None:
        self.span = span
        self.position = position
        self.client = client
        self.left = asyncio.Event()
        """Event that is set when the watcher has left its group: it is slow or gone, or the feed has ended."""


class _Group(msgspec.Struct):
    """Watchers of one range that have the same position."""

    position: int
    watchers: dict[Watcher, None]


class WatchFeed:
    """The watchers of this replica that are up to date."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica
        self._groups: dict[Span, _Group] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._next = 0.0
        self.ended = False
        replica.on_change(self._changed)

    def replay(self, watcher: Watcher) -> bytes | None:
        """Return the next events of the history for a watcher, and advance its position; empty if it is up to date,
        None if some of the events are compacted."""
        history, end = self._replica.history, self._replica.position
        if watcher.position < history.compacted:
            return None
        found: list[KeyChange] = []
        room = REPLAY_BYTES
        for event in history.after(watcher.position):
            if (room < 0 or len(found) >= REPLAY_EVENTS) and event.revision != found[-1].revision:
                end = found[-1].position
                break
            if event.key in watcher.span:
                found.append(event)
                room -= len(event.record.value) if event.record is not None else 0
        watcher.position = max(watcher.position, end)
        return render(found)

    def follow(self, watcher: Watcher) -> None:
        """Send all further events to `watcher`, which is up to date, until it leaves."""
        watcher.left.clear()
        if self.ended:
            watcher.left.set()
            return
        group = self._groups.get(watcher.span)
        if group is not None and group.position != watcher.position:
            self._advance(watcher.span, group)
            group = self._groups.get(watcher.span)
        if group is None:
            group = self._groups[watcher.span] = _Group(watcher.position, {})
        group.watchers[watcher] = None
        if self._progress is None:
            self._progress = asyncio.get_running_loop().call_later(PROGRESS_S, self._tell_progress)

    def end(self) -> None:
        """Let all watchers leave."""
        self.ended = True
        for group in self._groups.values():
            for watcher in group.watchers:
                watcher.left.set()
        self._groups = {}
        for timer in (self._timer, self._progress):
            if timer is not None:
                timer.cancel()

    def _changed(self) -> None:
        if self._timer is None and self._groups:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next), self._go_round)

    def _go_round(self) -> None:
        self._timer = None
        begun = time.perf_counter()
        for span, group in list(self._groups.items()):
            self._advance(span, group)
        self._next = asyncio.get_running_loop().time() + max(PAUSE_S, PAUSE_ROUNDS * (time.perf_counter() - begun))

    def _advance(self, span: Span, group: _Group) -> None:
        """Send the new events to all watchers of a group."""
        history, end = self._replica.history, self._replica.position
        if group.position < history.compacted:
            self._dismiss(span, group, list(group.watchers))
            return
        chunk = render(event for event in history.after(group.position) if event.key in span)
        group.position = max(group.position, end)
        if chunk:
            self._send(span, group, chunk)

    def _send(self, span: Span, group: _Group, chunk: bytes) -> None:
        leaving = []
        for watcher in group.watchers:
            client = watcher.client
            if not client.is_gone:
                client.write(chunk)
                watcher.position = group.position
            if client.is_gone or client.is_behind:
                leaving.append(watcher)
        self._dismiss(span, group, leaving)

    def _dismiss(self, span: Span, group: _Group, watchers: Iterable[Watcher]) -> None:
        for watcher in watchers:
            watcher.position = group.position if not watcher.client.is_gone else watcher.position
            del group.watchers[watcher]
            watcher.left.set()
        if not group.watchers:
            self._groups.pop(span, None)

    def _tell_progress(self) -> None:
        """Tell all watchers the present revision. This also finds the connections that are dead."""
        for span, group in list(self._groups.items()):
            self._advance(span, group)
            if group.watchers:
                self._send(span, group, b"id: %d\n\n" % revision_of(group.position))
        self._progress = None
        if self._groups:
            self._progress = asyncio.get_running_loop().call_later(PROGRESS_S, self._tell_progress)


def render(events: Iterable[KeyChange]) -> bytes:
    """Return the changes as server-sent events. The last one of a revision has the revision as its id: a client that
    resumes after an id has seen all changes of that revision."""
    parts: list[bytes] = []
    last: KeyChange | None = None
    for event in events:
        if last is not None:
            parts.append(_lines(last, ends=event.revision != last.revision))
        last = event
    if last is not None:
        parts.append(_lines(last, ends=True))
    return b"".join(parts)


def _lines(event: KeyChange, *, ends: bool) -> bytes:
    document = event_document(event.key, event.record, event.revision)
    kind = b"put" if event.record is not None else b"delete"
    identity = b"id: %d\n" % event.revision if ends else b""
    return b"%bevent: %b\ndata: %b\n\n" % (identity, kind, encode(document))
