"""The multi-version key space of the state, in two sets of tables.

The live tables hold the state. The idle tables receive the pages of a peer's snapshot; when the snapshot is complete,
the two sets change places. In the idle tables only the staged rows are valid. Rows after them belong to a replaced
state or an abandoned snapshot: they are never read, and `storage.maintenance` removes them.
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
"""The highest possible position."""


class KeySpace:
    """The live and the idle state tables."""

    def __init__(self, connection: sqlite3.Connection, path: Path, manifest: Manifest) -> None:
        """Open the tables as `manifest` describes them. Raises DamagedError if the end of the state is missing."""
        one, other = (StateTables(name, connection, path) for name in NAMES)
        self._path = path
        self.live, self.idle = (one, other) if manifest.live == one.name else (other, one)
        self.compacted = manifest.compacted
        """Base of the live tables."""
        self.incomplete_below = manifest.hard_state.compact
        """Position that the base must reach before the state can be read. Below it, records that are alive at the base
        may be missing: a compaction round has begun to remove them, perhaps before the last restart."""
        self.staging = manifest.hard_state.staging
        """Extent of the staged snapshot in the idle tables, whose base is `staging.compacted`."""
        self.has_spent_runs = self.live.begins_before(self.compacted)
        """True if the live tables may have runs before their base, which are no longer needed."""
        self._check_end(manifest.hard_state.progress.position)
        self.idle_has_garbage = self.idle.holds_rows_after(self.staging.position)
        """True if the idle tables may have rows that are not staged."""

    def _check_end(self, position: int) -> None:
        end = max(self.live.end(), self.compacted)
        if end != position:
            raise damaged(
                self._path, f"table {self.live.history} ends at position {end}, but the state has position {position}"
            )

    def store(self, writes: Iterable[Write]) -> int:
        """Store the changes and the staged pages of `writes` in order; return the bytes of the changes."""
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
        self.idle.drop_records_after(staged.after, upto)
        self.idle.drop_runs_after(staged.after, upto)
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
        """True while records that are alive at the base of the live tables may be missing."""
        return self.compacted < self.incomplete_below

    def move_base(self, position: int) -> None:
        """Set the base of the live tables to `position`. Their records as of this position are complete."""
        self.compacted = position
        self.has_spent_runs = True

    def page(self, after: int, max_bytes: int, manifest: Manifest) -> StatePage:
        """Return a page of the state, see `Storage.read_state`."""
        progress = manifest.hard_state.progress
        changes, whole = _page(self.live, self.compacted, after, progress.position, max_bytes)
        return StatePage(changes, self.compacted, progress if whole else None)

    def staged_page(self, after: int, max_bytes: int) -> StatePage:
        """Return a page of the staged snapshot, see `Storage.read_state`."""
        position, compacted, lowest = self.staging
        changes, _ = _page(self.idle, compacted, after, position, max_bytes)
        return StatePage(changes, lowest, None)


def _page(tables: StateTables, base: int, after: int, upto: int, max_bytes: int) -> tuple[list[Change], bool]:
    """Return rows after position `after`, at least one if there is one, and True if no row up to `upto` is left."""
    page: list[Change] = []
    for change in tables.changes(base, after, upto):
        max_bytes -= size_of(change)
        if page and max_bytes < 0:
            return page, False
        page.append(change)
    return page, True
