"""Rows that carry a checksum over everything else in them, so that a damaged one is never taken for data (rule 5)."""

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from storage.errors import damaged


def checksum(fields: str, *blobs: bytes) -> int:
    """CRC-32 of a row: its numbers and names with a space between them, which none of them holds, and its blobs. Where
    there are several of these, the fields tell how long they are."""
    found = zlib.crc32(fields.encode())
    for blob in blobs:
        found = zlib.crc32(blob, found)
    return found


def with_checksum(*fields: int | str | bytes) -> tuple[int | str | bytes, ...]:
    """A row of a table that has only one, complete."""
    blobs = [field for field in fields if isinstance(field, bytes)]
    text = " ".join(str(len(field) if isinstance(field, bytes) else field) for field in fields)
    return (*fields, checksum(text, *blobs))


def decode_text(data: bytes) -> str:
    """For `Connection.text_factory`: a damaged name must reach the checksum, which knows the row, not fail before."""
    return data.decode(errors="replace")


def only_row(connection: sqlite3.Connection, path: Path, table: str) -> tuple[Any, ...]:
    """The columns before the checksum, the last column, in the one row of `table`. Raises StorageError on damage."""
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 -- the name is a constant of ours
    if len(rows) != 1:
        raise damaged(path, f"table {table} has {len(rows)} rows instead of one")
    *fields, _ = rows[0]
    if with_checksum(*fields) != rows[0]:
        raise damaged(path, f"the row of table {table} does not have its checksum")
    return tuple(fields)


class BatchInsert:
    """Stores rows whose first column is a number from 0 on, up to 256 of them with one statement.

    SQLite's module lets other threads run at each step of a statement, and waits up to 5 ms until a busy one gives way:
    with one statement for each row that is what storing costs. So there are statements for 1, 4, 16, 64 and 256 rows,
    and -1 fills up what is left: for NULL the module would look for an adapter, three exceptions each. Figures:
    docs/decisions/0005-state-in-sqlite.md
    """

    _SIZES = (1, 4, 16, 64, 256)
    _NO_ROW = -1

    def __init__(self, into: str, columns: int) -> None:
        """`into` is the statement up to the name of the table."""
        row = f"({', '.join('?' * columns)})"
        self._columns = columns
        self._statements = {
            size: f"{into} SELECT * FROM (VALUES {', '.join([row] * size)}) WHERE column1 >= 0"  # noqa: S608
            for size in self._SIZES
        }

    def store(self, connection: sqlite3.Connection, rows: Sequence[Iterable[object]]) -> None:
        """Store `rows` in this order."""
        most = self._SIZES[-1]
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            size = next(size for size in self._SIZES if size >= len(part))
            values = list(chain.from_iterable(part))
            values += [self._NO_ROW] * (size * self._columns - len(values))
            connection.execute(self._statements[size], values)
