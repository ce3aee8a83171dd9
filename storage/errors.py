"""What an operator reads when storage cannot be used: what is wrong, and what to do next."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.base import DamagedError, StorageError

_NEXT = {
    sqlite3.SQLITE_BUSY: "another program has it open: close that program",
    sqlite3.SQLITE_FULL: "the disk is full: free some space and start the replica again",
    sqlite3.SQLITE_READONLY: "give the user of this process the right to write it and its directory",
    sqlite3.SQLITE_CANTOPEN: "give the user of this process the right to write it and its directory",
    sqlite3.SQLITE_IOERR: "the disk failed: see the kernel's log, and start the replica again when the disk is sound",
}
_OTHERWISE = "start the replica again; if it comes back, report this line"


def damaged(path: Path, what: str) -> DamagedError:
    """The error for data that is not what was written: damaged is not absent, it may have been a vote (rule 5)."""
    return DamagedError(
        f"{path}: {what}. It may have held votes, and is not used. A replica that has peers sets it aside and is given "
        "the state by them; a lone one needs a backup, see `kvstore restore`"
    )


def unusable(directory: Path, error: OSError) -> StorageError:
    """The error for a directory that the system does not let us use."""
    return StorageError(
        f"{directory} cannot hold the data ({error.strerror}: {error.filename}): "
        "give the user of this process the right to create and write it, or, if this replica never ran, "
        "give another --data"
    )


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn any error of SQLite about the database at `path` into a StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the kind of error, what is above it tells kinds of that kind apart.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise damaged(path, str(error)) from error
        raise StorageError(f"{path}: {error}; {_NEXT.get(code, _OTHERWISE)}") from error
