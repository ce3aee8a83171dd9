"""The two tables of one copy of the state: the records as of a position, the base, and every later change.

    records_x   one row for each record that is alive at the base, by its position
    history_x   one row for each run of changes after the base, packed

Storing a change is cheap: it is packed together with the other changes of its commit. A change becomes a row of its own
only if it is still alive when compaction moves the base past it, see `storage.compaction`. Runs before the base are
ignored: they were not removed yet. Records after the base are ignored: they were written in advance of its next move.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any
from zlib import crc32

import msgspec

from storage.base import Change, follows
from storage.errors import damaged
from storage.rows import BatchInsert, checksum

NAMES = ("a", "b")
"""Suffixes of the names of the tables."""
RUN_BYTES = 64 * 1024
"""Limit of the keys and values in one run; a single change may exceed it."""
RUN_CHANGES = 512
"""Limit of the changes in one run. Runs are short because reading a page of the state unpacks whole runs."""

_NUMBERS = Struct("<6q")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Change]).decode


class StateTables:
    """The tables of records and history with one suffix. The caller opens the transactions."""

    def __init__(self, name: str, connection: sqlite3.Connection, path: Path) -> None:
        self.name = name
        self.records, self.history = f"records_{name}", f"history_{name}"
        self._connection = connection
        self._path = path
        self._add = BatchInsert(f"INSERT OR REPLACE INTO {self.records}", columns=7)
        self._append = BatchInsert(f"INSERT INTO {self.history}", columns=4)
        # A condition for the run that contains position ?, if there is one, and all later runs.
        self._from_run = f"first >= coalesce((SELECT max(first) FROM {self.history} WHERE first <= ?), 0)"  # noqa: S608

    def add(self, changes: Sequence[Change]) -> None:
        """Store puts in the table of records."""
        if changes:
            self._add.store(self._connection, [(*change, _checksum(change)) for change in changes])

    def append(self, changes: Sequence[Change]) -> None:
        """Append changes to the history."""
        if changes:
            self._append.store(self._connection, [_row(run) for run in _runs(changes)])

    def begins_before(self, position: int) -> bool:
        """Return True if the history has a run that ends at `position` or before it."""
        row = self._execute(f"SELECT last FROM {self.history} ORDER BY first LIMIT 1").fetchone()  # noqa: S608
        return row is not None and row[0] <= position

    def end(self) -> int:
        """Return the last position of the history, 0 if it is empty."""
        row = self._execute(f"SELECT last FROM {self.history} ORDER BY first DESC LIMIT 1").fetchone()  # noqa: S608
        return row[0] if row is not None else 0

    def changes(self, base: int, after: int, upto: int) -> Iterator[Change]:
        """Yield the rows after position `after` up to `upto`, in order: records up to position `base`, then every
        change. Raises DamagedError."""
        yield from self._records(after, min(base, upto))
        reached = max(after, base)
        for run in self.runs(reached, upto):
            for change in run:
                if reached < change.position <= upto:
                    reached = change.position
                    yield change

    def _records(self, after: int, upto: int) -> Iterator[Change]:
        with closing(
            self._execute(
                "SELECT position, key, value, create_revision, version, supersedes, checksum "  # noqa: S608
                f"FROM {self.records} WHERE position > ? AND position <= ? ORDER BY position",
                (after, upto),
            )
        ) as rows:
            for row in rows:
                yield self._verified(row)

    def runs(self, after: int, upto: int) -> Iterator[list[Change]]:
        """Yield the runs that contain the changes after position `after` up to `upto`. Raises DamagedError if a run
        fails its checksum or is missing."""
        reached = after
        with closing(
            self._execute(
                f"SELECT first, last, changes, checksum FROM {self.history} "  # noqa: S608
                f"WHERE {self._from_run} AND last > ? AND first <= ? ORDER BY first",
                (after + 1, after, upto),
            )
        ) as rows:
            for first, last, packed, stored in rows:
                if first > reached and not follows(first, reached):
                    break
                yield self._unpacked(first, last, packed, stored)
                reached = last
        if reached < upto:
            raise damaged(self._path, f"table {self.history} lacks the row after position {reached}")

    def drop_records(self, positions: Iterable[int]) -> None:
        """Remove the records of these positions."""
        self._execute(
            f"DELETE FROM {self.records} WHERE position IN (SELECT value FROM json_each(?))",  # noqa: S608
            (json.dumps(list(positions)),),
        )

    def drop_records_after(self, after: int, upto: int) -> int:
        """Remove the records after position `after` up to `upto`; return their number."""
        return self._execute(
            f"DELETE FROM {self.records} WHERE position > ? AND position <= ?",  # noqa: S608 -- table names are constants, here and below
            (after, upto),
        ).rowcount

    def drop_runs_after(self, after: int, upto: int) -> int:
        """Remove the runs with a change after position `after` up to `upto`; return their number."""
        return self._execute(
            f"DELETE FROM {self.history} WHERE {self._from_run} AND last > ? AND first <= ?",  # noqa: S608
            (after, after, upto),
        ).rowcount

    def drop_runs_upto(self, upto: int) -> None:
        """Remove the runs that end at position `upto` or before it."""
        self._execute(f"DELETE FROM {self.history} WHERE first <= ? AND last <= ?", (upto, upto))  # noqa: S608

    def drop_superseded(self, after: int, upto: int) -> None:
        """Remove the records that records after position `after` up to `upto` superseded or deleted, and the
        deletions."""
        self._execute(
            f"DELETE FROM {self.records} WHERE position IN (SELECT old.position FROM {self.records} AS new "  # noqa: S608
            f"JOIN {self.records} AS old ON old.position = new.supersedes AND old.key = new.key "
            "WHERE new.position > ? AND new.position <= ?)",
            (after, upto),
        )
        self._execute(
            f"DELETE FROM {self.records} WHERE position > ? AND position <= ? AND value IS NULL",  # noqa: S608
            (after, upto),
        )

    def holds_rows_after(self, position: int) -> bool:
        """Return True if a record or a run ends after `position`."""
        row = self._execute(f"SELECT max(position) FROM {self.records}").fetchone()  # noqa: S608
        return max(row[0] or 0, self.end()) > position

    def _execute(self, statement: str, values: tuple[int | str, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _unpacked(self, first: Any, last: Any, packed: Any, stored: Any) -> list[Change]:
        if not isinstance(packed, bytes) or checksum(f"{first} {last}", packed) != stored:
            raise damaged(self._path, f"the row of position {first} in table {self.history} fails its checksum")
        return _decode(packed)

    def _verified(self, row: tuple[Any, ...]) -> Change:
        change = Change._make(row[:-1])
        _, key, value, *_ = row
        sound = isinstance(key, bytes) and (value is None or isinstance(value, bytes))
        try:
            sound = sound and _checksum(change) == row[-1]
        except StructError:  # a column has the wrong type
            sound = False
        if not sound:
            raise damaged(
                self._path, f"the row of position {change.position} in table {self.records} fails its checksum"
            )
        return change


def size_of(change: Change) -> int:
    """Return the bytes of the key and the value of `change`."""
    return len(change.key) + len(change.value or b"")


def _runs(changes: Iterable[Change]) -> Iterator[list[Change]]:
    run: list[Change] = []
    size = 0
    for change in changes:
        size += size_of(change)
        if run and (size > RUN_BYTES or len(run) == RUN_CHANGES):
            yield run
            run, size = [], size_of(change)
        run.append(change)
    yield run


def _row(run: Sequence[Change]) -> tuple[int, int, bytes, int]:
    first, last, packed = run[0].position, run[-1].position, _encode(run)
    return first, last, packed, checksum(f"{first} {last}", packed)


def _checksum(change: Change) -> int:
    """Return the CRC-32 over the numbers and lengths of `change`, its key and its value."""
    position, key, value, create_revision, version, supersedes = change
    if value is None:
        return crc32(key, crc32(_NUMBERS.pack(position, len(key), -1, create_revision, version, supersedes)))
    numbers = _NUMBERS.pack(position, len(key), len(value), create_revision, version, supersedes)
    return crc32(value, crc32(key, crc32(numbers)))
