"""Rows that carry a checksum over everything else in them, so that a damaged one is never taken for data (rule 5)."""

import sqlite3
import zlib
from pathlib import Path
from typing import Any

from storage.errors import damaged


def checksum(fields: str, value: bytes = b"") -> int:
    """CRC-32 of a row: its numbers and names with a space between them, which none of them holds, and its blob."""
    return zlib.crc32(value, zlib.crc32(fields.encode()))


def with_checksum(*fields: int | str) -> tuple[int | str, ...]:
    """A row without a blob, complete."""
    return (*fields, checksum(" ".join(map(str, fields))))


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
