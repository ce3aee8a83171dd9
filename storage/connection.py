"""The connection to the database file: its settings, and checkpoints of its write-ahead log.

The settings serve rules 1, 4 and 5. WAL mode with synchronous=FULL syncs the write-ahead log at each commit. SQLite's
automatic checkpoint ignores a failed sync, so it is off; `checkpoint` reports the failure. One connection locks the
file exclusively, because several connections can corrupt a WAL (SQLite 3.7.0 to 3.51.2) and because no second process
may open the data.

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html
"""

import sqlite3
from pathlib import Path

from storage.base import StorageError
from storage.rows import decode_text

_PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),  # first: without it the index of the WAL would be in shared memory
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", "ON", 1),  # macOS: a plain fsync does not flush the cache of the drive
    ("wal_autocheckpoint", "0", 0),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database at `path`. Raises StorageError if a setting does not hold, and sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = decode_text
        for name, value, _ in _PRAGMAS:
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
        _verify_pragmas(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _verify_pragmas(connection: sqlite3.Connection, path: Path) -> None:
    for name, value, expected in _PRAGMAS:
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            raise StorageError(
                f"{path}: SQLite {sqlite3.sqlite_version} reports {found} for PRAGMA {name} = {value}. Without this "
                "setting a power failure could undo a vote: put the data on a local file system, or install a full "
                "build of SQLite"
            )


def checkpoint(connection: sqlite3.Connection, path: Path, mode: str) -> None:
    """Move the frames of the write-ahead log into the database. Raises StorageError if some remain; sqlite3.Error."""
    busy, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    if busy or moved != frames:
        raise StorageError(
            f"{path}: a checkpoint moved only {moved} of {frames} frames of the write-ahead log into the database: "
            "close any other program that has the file open, and start the replica again"
        )
