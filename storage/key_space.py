"""The multi-version key space: two generations of it, of which one is live and holds the state.

Into the other one, idle, go the pages of the state that another replica gives, and when that is whole the two change
places. In the idle one only what is staged counts; what lies behind it is of a state that was replaced or begun anew,
nothing reads it, and `storage.maintenance` removes it.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from paxos.ready import Write
from storage.base import Change, StagedPage, StatePage, StateWrite
from storage.errors import damaged
from storage.hard_state import Staging
from storage.manifest import Manifest
from storage.state_tables import NAMES, StateTables, size_of

NO_END = 2**63 - 1


class KeySpace:
    """The two generations, and what they hold."""

    def __init__(self, connection: sqlite3.Connection, path: Path, bounds: Manifest) -> None:
        """Raises StorageError when the end of the state is missing."""
        one, other = (StateTables(name, connection, path) for name in NAMES)
        self._path = path
        self.live, self.idle = (one, other) if bounds.live == one.name else (other, one)
        self.compacted = bounds.compacted
        """The base of the live generation."""
        self.incomplete_below = bounds.hard_state.compact
        """Until the base is here, records that were alive at it may be gone: a round removes them, perhaps one of an
        earlier life."""
        self.staging = bounds.hard_state.staging
        """What of the idle one counts. It is `staging.compacted` that is its base."""
        self.has_spent_runs = self.live.begins_before(self.compacted)
        """True when runs of the live generation may lie before its base."""
        self._check_end(bounds.hard_state.progress.position)
        self.idle_has_garbage = self.idle.holds_behind(self.staging.position)
        """True when the idle generation may hold rows that do not count."""

    def _check_end(self, position: int) -> None:
        end = max(self.live.end(), self.compacted)
        if end != position:
            raise damaged(
                self._path, f"table {self.live.history} ends at position {end}, but the state is of {position}"
            )

    def store(self, writes: Iterable[Write]) -> int:
        """Store the changes and the staged pages of `writes`, in order; gives the bytes of the changes."""
        changes: list[Change] = []
        for write in writes:
            if isinstance(write, StateWrite):
                changes += write.changes
                if write.staged is not None:
                    self.live.append(changes)
                    changes = []
                    self._stage(write.staged)
        self.live.append(changes)
        return sum(map(size_of, changes))

    def _stage(self, staged: StagedPage) -> None:
        progress, changes = staged.page.progress, staged.page.changes
        self.staging = self.staging.after(staged)
        upto = self.staging.position if progress is None else NO_END
        self.idle.drop_records_behind(staged.after, upto)
        self.idle.drop_runs_behind(staged.after, upto)
        records = bisect_right(changes, self.staging.compacted, key=attrgetter("position"))
        self.idle.add(changes[:records])
        self.idle.append(changes[records:])
        self.idle_has_garbage |= staged.after == 0
        if progress is not None:
            self._install()

    def _install(self) -> None:
        _, self.compacted, lowest = self.staging
        self.live, self.idle, self.staging = self.idle, self.live, Staging()
        self.idle_has_garbage, self.has_spent_runs = True, False
        self.incomplete_below = 0
        if lowest < self.compacted:
            self.live.drop_superseded(lowest, self.compacted)

    @property
    def incomplete(self) -> bool:
        """True when the live generation is not whole as of its base."""
        return self.compacted < self.incomplete_below

    def move_base(self, position: int) -> None:
        """The records of the live generation are those of `position` now."""
        self.compacted = position
        self.has_spent_runs = True

    def page(self, after: int, max_bytes: int, bounds: Manifest) -> StatePage:
        """See `Storage.read_state`."""
        progress = bounds.hard_state.progress
        changes, whole = _page(self.live, self.compacted, after, progress.position, max_bytes)
        return StatePage(changes, self.compacted, progress if whole else None)

    def staged_page(self, after: int, max_bytes: int) -> StatePage:
        """The same of what is staged."""
        position, compacted, lowest = self.staging
        changes, _ = _page(self.idle, compacted, after, position, max_bytes)
        return StatePage(changes, lowest, None)


def _page(generation: StateTables, base: int, after: int, upto: int, max_bytes: int) -> tuple[list[Change], bool]:
    """Rows behind `after`, at least one, and whether they reach `upto`."""
    page: list[Change] = []
    for change in generation.changes(base, after, upto):
        max_bytes -= size_of(change)
        if page and max_bytes < 0:
            return page, False
        page.append(change)
    return page, True
