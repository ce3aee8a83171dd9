"""Pages of changes as server-sent events. A page is encoded once for all watchers of the same keys.

    position                       end
       |  change  change  change  ...|      a page: the events of one range of keys between two positions,
       |  frame  |  frame  |  frame  |      cut into frames, the chunks that are written to a connection

Watchers that begin at different positions soon read the same pages, because a page ends with its block of revisions.
The pages in use are kept in a cache of limited size. A watcher holds none of them: it knows its position and the number
of frames that it was sent, and a page that has left the cache is encoded again, to the same bytes.
"""

import msgspec

from kvstore.api.json.documents import event_document
from kvstore.api.key_range import Span
from kvstore.server.http.response import encode
from kvstore.server.service import ReplicaService
from kvstore.state_machine.history import History, KeyChange
from storage.base import revision_of

FRAME_BYTES = 32 * 1024
"""Size from which a page has no further event. The events of a page that are longer than twice this size are cut into
frames of this size."""
BLOCK_REVISIONS = 128
"""Revisions of a block."""
MAX_SCANNED = 1000
"""Most changes that are looked at for a page."""
CACHE_BYTES = 16 << 20
_OVERHEAD_BYTES = 400
"""Memory of a page in the cache without its events."""


class EventPage(msgspec.Struct, frozen=True):
    """The events up to position `end`; no frame if there are none."""

    end: int
    frames: tuple[bytes, ...]
    is_open: bool
    """True if the page ends with the history, so that a later page from the same position may be longer."""


class EventPages:
    """The pages of the history of a replica."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica
        self._cache: dict[tuple[Span, int], EventPage] = {}
        """Pages by their range and the position before them, the least recently used first."""
        self._cached_bytes = 0
        self.fresh = 0
        """Position that an open page must reach; otherwise it is encoded again."""

    def after(self, span: Span, position: int) -> EventPage | None:
        """Return the page after `position`, None if some of its changes are compacted."""
        key = span, position
        page = self._cache.pop(key, None)
        if page is not None:
            if not page.is_open or page.end >= self.fresh:
                self._cache[key] = page
                return page
            self._cached_bytes -= _size(page)
        history = self._replica.history
        if position < history.compacted:
            return None
        page = encode_page(history, self._replica.position, span, position)
        self._cache[key] = page
        self._cached_bytes += _size(page)
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= _size(self._cache.pop(next(iter(self._cache))))
        return page


def _size(page: EventPage) -> int:
    return _OVERHEAD_BYTES + sum(map(len, page.frames))


def encode_page(history: History, head: int, span: Span, start: int) -> EventPage:
    """Return the page of the changes of `span` after position `start`. `head` is the position of the last change.

    The last event of a revision has the revision as its id: a client that resumes after an id has seen all changes of
    that revision. If a page ends within a revision, the id follows in a later page.
    """
    events = _Events()
    end, revision, block = start, revision_of(start), -1
    for scanned, change in enumerate(history.after(start)):
        before, revision = revision, revision_of(change.position)
        if revision != before:
            events.end_revision(before)
        elif not scanned:
            events.owes_id = True
        is_full = events.size_bytes >= FRAME_BYTES or scanned >= MAX_SCANNED
        if is_full or (block >= 0 and block != revision // BLOCK_REVISIONS):
            return EventPage(end, events.frames(), False)
        if change.key in span:
            events.add(change)
            block = revision // BLOCK_REVISIONS
        end = change.position
    events.end_revision(revision)
    return EventPage(max(end, head), events.frames(), True)


class _Events:
    """The events of a page so far."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._last: KeyChange | None = None
        """The last change, which is not encoded yet: it gets the id if no other change of its revision follows."""
        self.size_bytes = 0
        self.owes_id = False
        """True if events of the present revision were sent without its id."""

    def add(self, change: KeyChange) -> None:
        """Add a change."""
        self._encode_last(b"")
        self._last = change

    def end_revision(self, revision: int) -> None:
        """Give the last event of `revision` its id."""
        identity = b"id: %d\n" % revision
        if self._last is not None:
            self._encode_last(identity)
        elif self.owes_id:
            self._parts.append(identity + b"\n")
        self.owes_id = False

    def frames(self) -> tuple[bytes, ...]:
        """Return all events as frames."""
        self._encode_last(b"")
        events = b"".join(self._parts)
        if len(events) <= 2 * FRAME_BYTES:
            return (events,) if events else ()
        return tuple(events[start : start + FRAME_BYTES] for start in range(0, len(events), FRAME_BYTES))

    def _encode_last(self, identity: bytes) -> None:
        change, self._last = self._last, None
        if change is None:
            return
        document = event_document(change.key, change.record, revision_of(change.position))
        kind = b"put" if change.record is not None else b"delete"
        event = b"%bevent: %b\ndata: %b\n\n" % (identity, kind, encode(document))
        self._parts.append(event)
        self.size_bytes += len(event)
