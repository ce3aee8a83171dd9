"""Rows that carry a checksum over everything else in them, so that a damaged one is never taken for data (rule 5)."""

import sqlite3
import zlib
from pathlib import Path
from typing import Any

from storage.errors import damaged


def checksum(value: bytes, *fields: int | str) -> int:
    """CRC-32 of the fields of a row; `fields` are numbers and names, which hold no space."""
    return zlib.crc32(value, zlib.crc32(" ".join(map(str, fields)).encode()))


def decode_text(data: bytes) -> str:
    """For `Connection.text_factory`: a damaged name must reach the checksum, which knows the row, not fail before."""
    return data.decode(errors="replace")


def only_row(connection: sqlite3.Connection, path: Path, table: str) -> tuple[Any, ...]:
    """The columns before the checksum, the last column, in the one row of `table`. Raises StorageError on damage."""
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 -- the name is a constant of ours
    if len(rows) != 1:
        raise damaged(path, f"table {table} has {len(rows)} rows instead of one")
    *fields, stored = rows[0]
    if checksum(b"", *fields) != stored:
        raise damaged(path, f"the row of table {table} does not have its checksum")
    return tuple(fields)
