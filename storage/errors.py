"""Error messages about unusable storage: what happened, to which file, and what to do next."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.base import DamagedError, DiskFullError, StorageError

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another program has the file open: close that program and start the replica again",
    sqlite3.SQLITE_FULL: "the disk is full: free some space and start the replica again",
    sqlite3.SQLITE_READONLY: "allow the user of this process to write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "allow the user of this process to write the file and its directory",
    sqlite3.SQLITE_IOERR: (
        "the disk failed: see the kernel log. Start the replica again when the disk works; if its data is lost, use "
        "`kvstore member replace`"
    ),
}
_DEFAULT_REMEDY = "start the replica again, and report this message if it appears again"


def damaged(path: Path, damage: str) -> DamagedError:
    """Return the error for damaged data. Damaged data is not treated as absent: it may contain votes (rule 5)."""
    return DamagedError(
        f"{path}: {damage}. Votes may be lost, so the replica does not use this data. A replica with peers sets the "
        "data aside and gets a snapshot from them; for a single replica use `kvstore restore` with a backup"
    )


def unusable(directory: Path, error: OSError) -> StorageError:
    """Return the error for a data directory that cannot be created or written."""
    return StorageError(
        f"data directory {directory} is unusable ({error.strerror}: {error.filename}): allow the user of this process "
        "to create and write it, or, if this replica has never run, set another directory with --data"
    )


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn an error of SQLite about the database at `path` into a StorageError, or a DamagedError if the file is
    corrupt."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte of an extended error code is the primary error code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise damaged(path, str(error)) from error
        kind = DiskFullError if code == sqlite3.SQLITE_FULL else StorageError
        raise kind(f"{path}: {error}; {_REMEDIES.get(code, _DEFAULT_REMEDY)}") from error


def is_full(error: sqlite3.Error) -> bool:
    """Return True if no space was left on the disk to write to. No sync has failed then (rule 4)."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
