"""The events on their way to watchers. All of them are sent in turns of the pacer of the replica.

                 follow
    a watcher ----------> REPLAY: one frame in each turn, until it has all events
                             |            ^
                             v            | more events than one page
                          parked ----> EVENTS: one frame, once there are events of its keys
                             :
                             v
                          leaves: it is slow or gone, the events are compacted, or the feed has ended

A watcher has a position: all events up to it were written to its connection, and none after it except the frames of
the next page that are counted in `frames`. The feed writes no frame to a connection that is behind, so the memory of a
watcher that does not read is bounded by the write buffer of its connection. It follows again when it has read.
"""

import asyncio
from functools import partial
from itertools import islice

import msgspec

from kvstore.api.key_range import Span
from kvstore.server.http.event_pages import EventPages
from kvstore.server.http.request import ClientConnection
from kvstore.server.pacer import BackgroundKind
from kvstore.server.service import ReplicaService
from storage.base import revision_of

PAUSE_S = 0.01
"""Shortest time between two rounds to the parked watchers, so that the events of that time are sent together."""
BATCH = 16
"""Parked watchers that are sent events as one piece of work."""
PROGRESS_S = 10.0
"""Interval in which an idle watch is told the present revision, from which a client can resume."""


class Watcher:
    """A client that watches a range."""

    def __init__(self, span: Span, position: int, client: ClientConnection) -> None:
        self.span = span
        self.position = position
        self.frames = 0
        """Number of frames that were written of the page after the position."""
        self.client = client
        self.is_lost = False
        """True if the events after the position are compacted."""
        self.progress_round = 0
        """Last round of progress in which the watcher was sent anything."""
        self.left = asyncio.Event()
        """Event that is set when the watcher has left the feed."""


class _Group(msgspec.Struct):
    """The parked watchers of one range. There is no event of the range between the position of any of them and that of
    the group."""

    position: int
    watchers: dict[Watcher, None]
    is_due: bool = False
    """True while work that looks for new events is submitted."""


class WatchFeed:
    """The watchers of this replica."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica
        self._pacer = replica.pacer
        self._pages = EventPages(replica)
        self._groups: dict[Span, _Group] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._progress_round = 0
        self._next = 0.0
        self.ended = False
        replica.on_change(self._changed)

    def follow(self, watcher: Watcher) -> None:
        """Send all events after its position to `watcher`, until it leaves."""
        watcher.left.clear()
        watcher.progress_round = self._progress_round
        self._pacer.submit(BackgroundKind.REPLAY, partial(self._advance, watcher))
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

    def _advance(self, watcher: Watcher) -> None:
        """Send the next frame to a watcher. Then the watcher leaves, is parked, or goes on in a later turn."""
        client = watcher.client
        if self.ended or client.is_gone:
            watcher.left.set()
            return
        page = self._pages.after(watcher.span, watcher.position)
        if page is None:
            watcher.is_lost = True
            watcher.left.set()
            return
        if page.frames:
            client.write(page.frames[watcher.frames])
            watcher.frames += 1
            watcher.progress_round = self._progress_round
        if watcher.frames == len(page.frames):
            watcher.position, watcher.frames = page.end, 0
        if client.is_behind:
            watcher.left.set()
        elif not (page.is_open and self._park(watcher)):
            self._pacer.submit(BackgroundKind.REPLAY, partial(self._advance, watcher))

    def _park(self, watcher: Watcher) -> bool:
        """Park a watcher that has all events up to the last round. Return False if it lacks some."""
        group = self._groups.get(watcher.span)
        if watcher.position < max(self._pages.fresh, group.position if group is not None else 0):
            return False
        if watcher.progress_round != self._progress_round:
            watcher.progress_round = self._progress_round
            watcher.client.write(b"id: %d\n\n" % revision_of(watcher.position))
        if group is None:
            group = self._groups[watcher.span] = _Group(watcher.position, {})
        group.watchers[watcher] = None
        if watcher.position < self._replica.position:
            self._changed()
        return True

    def _changed(self) -> None:
        if self._timer is None and self._groups and not self.ended:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next), self._begin_round)

    def _begin_round(self) -> None:
        """Look for new events of the parked watchers."""
        self._timer = None
        self._next = asyncio.get_running_loop().time() + PAUSE_S
        self._pages.fresh = self._replica.position
        for span, group in self._groups.items():
            if not group.is_due:
                group.is_due = True
                self._pacer.submit(BackgroundKind.EVENTS, partial(self._look, span, group))

    def _look(self, span: Span, group: _Group) -> None:
        """Let the watchers of a group go on if there are events for them."""
        group.is_due = False
        if self._groups.get(span) is not group:
            return
        page = self._pages.after(span, group.position)
        if page is None or page.frames:
            self._release(span, group)
            return
        group.position = page.end
        if not page.is_open:
            group.is_due = True
            self._pacer.submit(BackgroundKind.EVENTS, partial(self._look, span, group))

    def _release(self, span: Span, group: _Group) -> None:
        del self._groups[span]
        for watcher in group.watchers:
            watcher.position = max(watcher.position, group.position)
        watchers = iter(group.watchers)
        while batch := list(islice(watchers, BATCH)):
            self._pacer.submit(BackgroundKind.EVENTS, partial(self._advance_all, batch))

    def _advance_all(self, watchers: list[Watcher]) -> None:
        for watcher in watchers:
            self._advance(watcher)

    def _tell_progress(self) -> None:
        """Tell all watchers that were sent nothing since the last time the present revision. This also finds the
        connections that are dead."""
        self._progress_round += 1
        self._pages.fresh = self._replica.position
        for span, group in list(self._groups.items()):
            self._release(span, group)
        self._progress = asyncio.get_running_loop().call_later(PROGRESS_S, self._tell_progress)
