"""Rows with a checksum over all their other columns, so that a damaged row is never used (rule 5)."""

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from storage.errors import damaged


def checksum(fields: str, *blobs: bytes) -> int:
    """Return the CRC-32 of a row.

    `fields` are the numbers and names of the row, separated by spaces; no name contains a space. If there are several
    blobs, `fields` include their lengths.
    """
    crc = zlib.crc32(fields.encode())
    for blob in blobs:
        crc = zlib.crc32(blob, crc)
    return crc


def with_checksum(*fields: int | str | bytes) -> tuple[int | str | bytes, ...]:
    """Return the complete row of a one-row table: `fields` and their checksum."""
    blobs = [field for field in fields if isinstance(field, bytes)]
    text = " ".join(str(len(field) if isinstance(field, bytes) else field) for field in fields)
    return (*fields, checksum(text, *blobs))


def decode_text(data: bytes) -> str:
    """Decode text for `Connection.text_factory`. Invalid UTF-8 must not fail here: the checksum of the row detects it
    and names the row."""
    return data.decode(errors="replace")


def only_row(connection: sqlite3.Connection, path: Path, table: str) -> tuple[Any, ...]:
    """Return the columns of the one row of `table`, without the checksum. Raises DamagedError if the row fails its
    checksum or there is not exactly one."""
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 -- the name is a constant of ours
    if len(rows) != 1:
        raise damaged(path, f"table {table} has {len(rows)} rows instead of one")
    *fields, _ = rows[0]
    if with_checksum(*fields) != rows[0]:
        raise damaged(path, f"the row of table {table} fails its checksum")
    return tuple(fields)


class BatchInsert:
    """An INSERT of many rows, up to 256 with one statement. The first column of each row is a number of at least 0.

    Python's sqlite3 module releases the interpreter lock at each step of a statement, and may wait up to 5 ms to get
    the lock back from a busy thread. With one statement for each row this wait would dominate. There are statements for
    1, 4, 16, 64 and 256 rows, and unused parameters are -1. NULL would be slower: for each NULL the module searches for
    an adapter and raises three exceptions internally. Figures: docs/decisions/0005-state-in-sqlite.md
    """

    _SIZES = (1, 4, 16, 64, 256)
    _NO_ROW = -1

    def __init__(self, into: str, columns: int) -> None:
        """Prepare the statements. `into` is the statement up to the name of the table."""
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
