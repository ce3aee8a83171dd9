"""The multi-version key space, as rows: what each revision did.

There are two tables of them. One is live: it holds the state. Into the other, idle, go the pages of the state that
another replica gives, and when that is whole the two change places. In the idle table only rows up to the staged
revision count; those behind it are of a state that was replaced or begun anew, nothing reads them, and
`storage.housekeeping` removes them.

Rows are never changed, only added at the end, and removed when they are compacted.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any
from zlib import crc32

from paxos.ready import Write
from storage.base import Change, Staged, StatePage, StateWrite
from storage.bounds import Bounds
from storage.errors import damaged
from storage.marks import Staging
from storage.rows import Insert

TABLES = ("state_a", "state_b")
NO_END = 2**63 - 1
BETWEEN = "WHERE new.revision > ? AND new.revision <= ?"

_NUMBERS = Struct("<6q")
_INSERT = {table: Insert(f"INSERT OR REPLACE INTO {table}", columns=7) for table in TABLES}


class KeySpace:
    """The two tables, and what they hold."""

    def __init__(self, connection: sqlite3.Connection, path: Path, bounds: Bounds) -> None:
        """Raises StorageError when the end of the state is missing."""
        self._connection = connection
        self._path = path
        self.live = bounds.live
        """Name of the table that holds the state."""
        self.compacted = bounds.compacted
        """What is superseded up to here has left the live table, and nothing else has."""
        self.staging = bounds.marks.staging
        """What of the idle table counts."""
        self._refuse_short(bounds.marks.progress.revision)
        self.littered = self._is_littered()
        """True when the idle table may hold rows that do not count."""

    @property
    def idle(self) -> str:
        """Name of the other table."""
        return TABLES[self.live == TABLES[0]]

    @property
    def pairs(self) -> str:
        """The rows of the live table, each with the one that it superseded."""
        return f"{self.live} AS new LEFT JOIN {self.live} AS old ON old.revision = new.supersedes AND old.key = new.key"

    def _refuse_short(self, revision: int) -> None:
        end = self._connection.execute(f"SELECT coalesce(max(revision), 0) FROM {self.live}").fetchone()[0]  # noqa: S608
        if max(end, self.compacted) != revision:
            raise damaged(self._path, f"table {self.live} ends at revision {end}, but the state is of {revision}")

    def _is_littered(self) -> bool:
        rows = self._connection.execute(
            f"SELECT 1 FROM {self.idle} WHERE revision > ? LIMIT 1",  # noqa: S608 -- a name of ours, as all below
            (self.staging.revision,),
        )
        return rows.fetchone() is not None

    def store(self, writes: Iterable[Write]) -> None:
        """Store the changes and the staged pages of `writes`, in order."""
        changes: list[Change] = []
        for write in writes:
            if isinstance(write, StateWrite):
                changes += write.changes
                if write.staged is not None:
                    self._insert(self.live, changes)
                    changes = []
                    self._stage(write.staged)
        self._insert(self.live, changes)

    def _stage(self, staged: Staged) -> None:
        progress = staged.page.progress
        self.staging = self.staging.after(staged)
        upto = self.staging.revision if progress is None else NO_END
        self._connection.execute(
            f"DELETE FROM {self.idle} WHERE revision > ? AND revision <= ?",  # noqa: S608
            (staged.after, upto),
        )
        self._insert(self.idle, staged.page.changes)
        self.littered |= staged.after == 0
        if progress is not None:
            self._install()

    def _install(self) -> None:
        _, compacted, lowest = self.staging
        self.live, self.compacted, self.staging = self.idle, lowest, Staging()
        self.littered = True
        if lowest < compacted:
            self.compact(compacted)

    def compact(self, upto: int) -> int:
        """Remove what is superseded or deleted up to revision `upto`; gives the number of rows.

        A superseded row goes only if it is of the same key: `supersedes` is not verified here, and what a damaged one
        names may be alive."""
        between = (self.compacted, upto)
        superseded = self._connection.execute(
            f"DELETE FROM {self.live} WHERE revision IN (SELECT old.revision FROM {self.pairs} {BETWEEN})",  # noqa: S608
            between,
        )
        deleted = self._connection.execute(
            f"DELETE FROM {self.live} WHERE revision > ? AND revision <= ? AND value IS NULL",  # noqa: S608
            between,
        )
        self.compacted = upto
        return superseded.rowcount + deleted.rowcount

    def _insert(self, table: str, changes: Sequence[Change]) -> None:
        if changes:
            _INSERT[table].store(self._connection, [(*change, _checksum(change)) for change in changes])

    def page(self, after: int, max_bytes: int, bounds: Bounds) -> StatePage:
        """See `Storage.read_state`."""
        revision = bounds.marks.progress.revision
        changes, whole = self._load(self.live, after, revision, max_bytes, self.compacted)
        return StatePage(changes, self.compacted, bounds.marks.progress if whole else None)

    def staged_page(self, after: int, max_bytes: int) -> StatePage:
        """The same of what is staged."""
        revision, compacted, lowest = self.staging
        changes, _ = self._load(self.idle, after, revision, max_bytes, compacted)
        return StatePage(changes, lowest, None)

    def _load(self, table: str, after: int, upto: int, max_bytes: int, compacted: int) -> tuple[list[Change], bool]:
        """Rows behind `after`, and whether they reach `upto`. Behind `compacted` there is one for each revision."""
        page: list[Change] = []
        reached = max(after, compacted)
        with closing(
            self._connection.execute(
                "SELECT revision, key, value, create_revision, version, supersedes, checksum "  # noqa: S608
                f"FROM {table} WHERE revision > ? AND revision <= ? ORDER BY revision",
                (after, upto),
            )
        ) as rows:
            for row in rows:
                change = self._verified(table, row)
                if change.revision > reached + 1:
                    break
                max_bytes -= len(change.key) + len(change.value or b"")
                if page and max_bytes < 0:
                    return page, False
                page.append(change)
                reached = max(reached, change.revision)
        if reached < upto:
            raise damaged(self._path, f"table {table} has no row for revision {reached + 1}")
        return page, True

    def _verified(self, table: str, row: tuple[Any, ...]) -> Change:
        change = Change._make(row[:-1])
        _, key, value, *_ = row
        sound = isinstance(key, bytes) and (value is None or isinstance(value, bytes))
        try:
            sound = sound and _checksum(change) == row[-1]
        except StructError:  # what should be numbers is something else
            sound = False
        if not sound:
            raise damaged(
                self._path, f"the row of revision {change.revision} in table {table} does not have its checksum"
            )
        return change


def _checksum(change: Change) -> int:
    """CRC-32 over all of it: the numbers and lengths, then key and value."""
    revision, key, value, create_revision, version, supersedes = change
    if value is None:
        return crc32(key, crc32(_NUMBERS.pack(revision, len(key), -1, create_revision, version, supersedes)))
    numbers = _NUMBERS.pack(revision, len(key), len(value), create_revision, version, supersedes)
    return crc32(value, crc32(key, crc32(numbers)))
