"""The changes of the latest revisions, from which the record of a key as of any of these revisions is found.

A change holds the record that it replaced. So the record of a key as of a revision is the one that the first later
change of the key replaced, or the present record if there is no later change.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from kvstore.api.commands import Record
from storage.base import end_of, revision_of

FEW = 64
"""Changes of one key that `History.as_of` follows backwards before it searches the history forwards."""
_position = attrgetter("position")


class KeyChange(msgspec.Struct, frozen=True, gc=False):
    """A change of `key` at `position`, from the record `old` to `record`; None stands for an absent key. `previous` is
    the position of the previous change of the key in the history, 0 for none."""

    position: int
    key: bytes
    record: Record | None
    old: Record | None
    previous: int

    @property
    def revision(self) -> int:
        """The revision of the change."""
        return revision_of(self.position)


_DROPPED = KeyChange(0, b"", None, None, 0)


class History:
    """The changes after the compacted position."""

    def __init__(self) -> None:
        self._changes: list[KeyChange] = []
        self._dropped = 0
        """Number of dropped changes that are still at the front of the list."""
        self._latest: dict[bytes, int] = {}
        """Position of the last change of each key."""
        self.compacted = 0
        """Position up to which changes are dropped: the end of the earliest revision that can be read."""
        self.backlog = 0
        """Number of changes that `compact` has yet to drop."""
        self.shown: int | None = None
        """Position of the last change that readers may see, while a log entry is applied in steps; None for all."""

    @property
    def oldest(self) -> int:
        """The earliest revision that can be read. All later changes are in the history."""
        return revision_of(self.compacted)

    def add(self, position: int, key: bytes, record: Record | None, old: Record | None) -> None:
        """Add a change."""
        self._changes.append(KeyChange(position, key, record, old, self._latest.get(key, 0)))
        self._latest[key] = position

    def compact(self, upto: int, most: int | None = None) -> list[bytes]:
        """Raise `compacted` to `upto`, and drop changes up to it, at most `most`, because a revision may have changed
        many keys. Later calls drop the rest. Return the keys that have no change left."""
        self.compacted = max(self.compacted, upto)
        first = self._dropped
        count = self._index_after(self.compacted) - first
        end = first + (count if most is None else min(count, most))
        self.backlog = first + count - end
        if first == end:
            return []
        gone = []
        for index in range(first, end):
            change = self._changes[index]
            if self._latest[change.key] == change.position:
                del self._latest[change.key]
                gone.append(change.key)
            self._changes[index] = _DROPPED  # frees the change now, and not many of them at once below
        self._dropped = end
        if end > len(self._changes) // 2:
            del self._changes[:end]
            self._dropped = 0
        return gone

    def keys(self) -> Iterable[bytes]:
        """Return the keys that have a change in the history."""
        return self._latest

    def holds(self, key: bytes) -> bool:
        """Return True if `key` has a change in the history."""
        return key in self._latest

    def as_of(self, key: bytes, revision: int, present: Record | None) -> Record | None:
        """Return the record of `key` as of `revision`, which must not be compacted. `present` is its present record."""
        start, position = max(end_of(revision), self.compacted), self._latest.get(key, 0)
        for _ in range(FEW):
            if position <= start:
                return present
            change = self._changes[self._index_after(position - 1)]
            present, position = change.old, change.previous
        # The key changes often, so its first change behind the revision is near.
        changes = self._changes
        later = (changes[index] for index in range(self._index_after(start), len(changes)))
        return next((change.old for change in later if change.key == key), present)

    def after(self, position: int) -> Iterator[KeyChange]:
        """Yield the changes after `position` that readers may see, in order. No change may be added or dropped
        meanwhile."""
        end = len(self._changes) if self.shown is None else self._index_after(self.shown)
        for index in range(self._index_after(position), end):
            yield self._changes[index]

    def _index_after(self, position: int) -> int:
        return bisect_right(self._changes, position, lo=self._dropped, key=_position)
