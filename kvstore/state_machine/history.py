"""What the store held before: the changes of the latest revisions, and through them every key as of each of these.

An event remembers the record that it replaced. So what a key held at a revision is what its first later event replaced,
or its present record when there is none.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from kvstore.api.commands import Record
from storage.base import end_of, revision_of

FEW = 64
"""Changes of one key that are gone through backwards."""
_position = attrgetter("position")


class KeyChange(msgspec.Struct, frozen=True, gc=False):
    """The change at `position`: `key` held `old` and holds `record` since, None for nothing. `previous`: where the
    event before it of the same key was, 0 for none."""

    position: int
    key: bytes
    record: Record | None
    old: Record | None
    previous: int

    @property
    def revision(self) -> int:
        """That the change is of."""
        return revision_of(self.position)


class History:
    """The events of all revisions behind the one up to which it is compacted."""

    def __init__(self) -> None:
        self._events: list[KeyChange] = []
        self._gone = 0
        """So many events at the front are forgotten."""
        self._latest: dict[bytes, int] = {}
        """Where the last event of each key is."""
        self.compacted = 0
        """Events are forgotten up to this position: the end of the earliest revision as of which keys are known."""

    @property
    def oldest(self) -> int:
        """The earliest revision as of which keys are known; the events behind it are all here."""
        return revision_of(self.compacted)

    def add(self, position: int, key: bytes, record: Record | None, old: Record | None) -> None:
        """What just happened."""
        self._events.append(KeyChange(position, key, record, old, self._latest.get(key, 0)))
        self._latest[key] = position

    def compact(self, upto: int) -> list[bytes]:
        """Forget the events up to position `upto`; gives the keys of which none is left."""
        if upto <= self.compacted:
            return []
        self.compacted = upto
        first, self._gone = self._gone, self._index_behind(upto)
        gone = []
        for event in self._events[first : self._gone]:
            if self._latest[event.key] == event.position:
                del self._latest[event.key]
                gone.append(event.key)
        if self._gone > len(self._events) // 2:
            del self._events[: self._gone]
            self._gone = 0
        return gone

    def keys(self) -> Iterable[bytes]:
        """Those to which something happened."""
        return self._latest

    def holds(self, key: bytes) -> bool:
        """True when something happened to `key`."""
        return key in self._latest

    def as_of(self, key: bytes, revision: int, present: Record | None) -> Record | None:
        """What `key` held once `revision` was done, none that is compacted. `present` is what it holds now."""
        start, position = max(end_of(revision), self.compacted), self._latest.get(key, 0)
        for _ in range(FEW):
            if position <= start:
                return present
            event = self._events[self._index_behind(position - 1)]
            present, position = event.old, event.previous
        # It changes often, so the first change behind the revision is not far from there.
        return next((event.old for event in self.behind(start) if event.key == key), present)

    def behind(self, position: int) -> Iterator[KeyChange]:
        """The events behind `position`, in order; none may be added or forgotten meanwhile."""
        for index in range(self._index_behind(position), len(self._events)):
            yield self._events[index]

    def _index_behind(self, position: int) -> int:
        return bisect_right(self._events, position, lo=self._gone, key=_position)
