"""What happens to keys, on its way to those who watch: encoded once for all who watch the same span.

    replica --- changed ---> Feed --- every few ms ---> a Group for each span ---> its Watchers, each a connection
                                                                                    |            ^
                                                            does not take it: leaves v            | up to date again
                                                                              reads on out of the past by itself

A watcher has a position: all events up to it were written to its connection, and none behind it.
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
SHARE = 2
"""Between two rounds to the watchers is a pause, so that what happens meanwhile goes out together: so long, or so many
times as long as a round takes, when there are many."""
PROGRESS_S = 10.0
"""A watch on which nothing happened is told how far it is: after a reconnect it goes on from there."""
REPLAY_EVENTS = 500
REPLAY_BYTES = 256 * 1024
"""Out of the past about so much goes out at once."""


class Watcher:
    """One connection."""

    def __init__(self, span: Span, position: int, client: ClientConnection) -> None:
        self.span = span
        self.position = position
        self.client = client
        self.left = asyncio.Event()
        """Set when it follows no longer: it lags, is gone, or the feed has ended."""


class _Group(msgspec.Struct):
    """Watchers of one span that are all at one position."""

    position: int
    watchers: dict[Watcher, None]


class WatchFeed:
    """All who watch this replica and are up to date."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica
        self._groups: dict[Span, _Group] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._next = 0.0
        self.ended = False
        replica.on_change(self._changed)

    def replay(self, watcher: Watcher) -> bytes | None:
        """The next events for one that is not up to date, and moves it; empty when there is none. None when some of
        them are forgotten."""
        history, end = self._replica.history, self._replica.position
        if watcher.position < history.compacted:
            return None
        found: list[KeyChange] = []
        room = REPLAY_BYTES
        for event in history.behind(watcher.position):
            if (room < 0 or len(found) >= REPLAY_EVENTS) and event.revision != found[-1].revision:
                end = found[-1].position
                break
            if event.key in watcher.span:
                found.append(event)
                room -= len(event.record.value) if event.record is not None else 0
        watcher.position = max(watcher.position, end)
        return render(found)

    def follow(self, watcher: Watcher) -> None:
        """`watcher` is up to date, and stays it until it leaves."""
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
        """Nobody follows any longer."""
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
        self._next = asyncio.get_running_loop().time() + max(PAUSE_S, SHARE * (time.perf_counter() - begun))

    def _advance(self, span: Span, group: _Group) -> None:
        """What happened goes to all of the group."""
        history, end = self._replica.history, self._replica.position
        if group.position < history.compacted:
            self._dismiss(span, group, list(group.watchers))
            return
        chunk = render(event for event in history.behind(group.position) if event.key in span)
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
        """Also finds those who have left without a word."""
        for span, group in list(self._groups.items()):
            self._advance(span, group)
            if group.watchers:
                self._send(span, group, b"id: %d\n\n" % revision_of(group.position))
        self._progress = None
        if self._groups:
            self._progress = asyncio.get_running_loop().call_later(PROGRESS_S, self._tell_progress)


def render(events: Iterable[KeyChange]) -> bytes:
    """Server-sent events. Only the last one of a revision carries it as its id: whoever resumes behind an id has seen
    all of that revision."""
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
