"""The data directory of a replica: its durable creation, and its lock, which one process at a time holds (rule 28)."""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from storage.base import StorageError
from storage.lock_record import COPY_BYTES, LockRecord, pack, unpack

LOCK_FILE = "lock"
DATA_FILE = "kvstore.db"
DATA_MODE = 0o600
_HOLDER_BYTES = 1000
"""Longest first line of the lock file that is shown."""


def make_directory(directory: Path) -> None:
    """Create `directory` and its missing parents; a power failure does not undo that. Raises OSError."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def make_file(path: Path) -> None:
    """Create an empty file, readable only by its owner, unless it exists; a power failure does not undo that. Raises
    OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, DATA_MODE))
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the entries of `directory` durable: fsync of a file does not sync its directory entry. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DirectoryLock:
    """The lock on a data directory, held until `close` or the end of the process; see `lock_directory`."""

    def __init__(self, path: Path, lock: BinaryIO, holder: str) -> None:
        self._path = path
        self._lock = lock
        self._holder = holder
        self._copy = 0
        """Copy of the record that was read: it stays until the other one is durable."""
        self.record = LockRecord()
        """Lock record as it was last read or written."""

    def load_record(self) -> None:
        """Read the lock record, and enter this process as the holder of the lock. Raises DamagedError if the record is
        unreadable, StorageError if its version is newer than this program, and OSError."""
        self.record, self._copy = unpack(_read(self._lock), self._path)
        self.update_record()

    def update_record(self, **fields: int | bool) -> None:
        """Change fields of the lock record; durable on return. Raises OSError."""
        self.record = msgspec.structs.replace(self.record, **fields)
        content = pack(self.record, f"process {os.getpid()}, {self._holder}")
        for copy in (1 - self._copy, self._copy):
            self._lock.seek(copy * COPY_BYTES)
            self._lock.write(content)
            os.fsync(self._lock.fileno())

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def lock_directory(directory: Path, holder: str) -> DirectoryLock:
    """Lock `directory` until the lock is closed or the process ends, even by a crash.

    `holder` describes this process in the StorageError of a second process. Raises StorageError if another process
    holds the lock, and OSError.
    """
    path = directory / LOCK_FILE
    make_file(path)
    lock = path.open("r+b", buffering=0)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = _holder_in(lock)
        lock.close()
        raise StorageError(
            f"{directory} is in use by {other}: stop that process, or start this one with another --data"
        ) from None
    return DirectoryLock(path, lock, holder)


def lock_holder(directory: Path) -> str | None:
    """Return a description of the process that holds the lock on `directory`, None if there is none. Raises OSError."""
    path = directory / LOCK_FILE
    if not path.exists():
        return None
    with path.open("rb", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder_in(lock)
    return None


def read_lock_record(directory: Path) -> LockRecord:
    """Return the lock record of `directory` without locking it. Raises what `DirectoryLock.load_record` does."""
    path = directory / LOCK_FILE
    if not path.exists():
        return LockRecord()
    with path.open("rb", buffering=0) as lock:
        return unpack(_read(lock), path).record


def _read(lock: BinaryIO) -> bytes:
    return os.pread(lock.fileno(), 2 * COPY_BYTES, 0)


def _holder_in(lock: BinaryIO) -> str:
    line = os.pread(lock.fileno(), _HOLDER_BYTES, 0).partition(b"\n")[0]
    return line.decode(errors="replace").strip("\0 ") or "another process"
