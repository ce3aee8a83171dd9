"""The data directory of a replica: its durable creation, and its lock, which one process at a time holds (rule 28).

The lock file has two lines: the process that holds or last held the lock, and the lock record. The record says which
data belongs in the directory, so that missing, older or other data is detected before the replica votes.
"""

import fcntl
import os
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import IO

import msgspec

from storage.base import DamagedError, StorageError

LOCK_FILE = "lock"
DATA_FILE = "kvstore.db"
LOCK_RECORD_VERSION = 1
DATA_MODE = 0o600


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


class LockRecord(msgspec.Struct, frozen=True):
    """The record of the data that belongs in the directory."""

    version: int = 1
    """Version of this record."""
    boot: int = 0
    """Boot that the data has reached, 0 if there is no data."""
    incarnation: int = 0
    """Incarnation of the data, 0 if there is no data."""
    replaces: int = 0
    """Incarnation of the damaged data that was set aside, 0 for none."""
    open: bool = False
    """True while the write-ahead log must exist and not be empty."""


class DirectoryLock:
    """The lock on a data directory, held until `close` or the end of the process; see `lock_directory`."""

    def __init__(self, lock: IO[str], holder: str) -> None:
        self._lock = lock
        self._holder = holder
        self.record = read_lock_record(lock)
        self.update_record()

    def update_record(self, **fields: int | bool) -> None:
        """Change fields of the lock record; durable on return. Raises OSError."""
        self.record = msgspec.structs.replace(self.record, **fields)
        self._lock.seek(0)
        self._lock.write(f"process {os.getpid()}, {self._holder}\n{msgspec.json.encode(self.record).decode()}\n")
        self._lock.truncate()
        self._lock.flush()
        os.fsync(self._lock.fileno())

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def read_lock_record(lock: IO[str]) -> LockRecord:
    """Return the lock record in an open lock file. Raises DamagedError if it is unreadable, StorageError if its version
    is newer than this program."""
    line = lock.read().partition("\n")[2].strip()
    if line.isascii() and line.isdecimal() and len(line) < 19:
        return LockRecord(boot=int(line))  # the format of the first releases
    try:
        record = msgspec.json.decode(line or "{}", type=LockRecord)
    except msgspec.MsgspecError as error:
        raise DamagedError(
            f"{lock.name}: the lock record is damaged, so the data beside it may be incomplete. Move "
            f"{Path(lock.name).parent} away, run `kvstore member replace`, and start the replica with an empty "
            "directory; for a single replica use `kvstore restore` with a backup"
        ) from error
    if record.version > LOCK_RECORD_VERSION:
        raise StorageError(
            f"{lock.name} was written by a newer version of this program (lock record {record.version}, this version "
            f"knows up to {LOCK_RECORD_VERSION}): start that version"
        )
    return record


def set_aside(directory: Path) -> Path:
    """Move damaged data to a new subdirectory, record that in the lock record, and return the subdirectory.

    The program never reads the moved data again; an operator may examine it. Raises StorageError and OSError.
    """
    with closing(lock_directory(directory, "repair")) as lock:
        destination = next(path for number in count(1) if not (path := directory / f"damaged-{number}").exists())
        destination.mkdir(mode=0o700)
        lock.update_record(replaces=lock.record.incarnation or lock.record.replaces)
        for path in sorted(directory.glob(f"{DATA_FILE}*")):
            path.rename(destination / path.name)
        sync_directory(directory)
        lock.update_record(boot=0, incarnation=0, open=False)
    return destination


def lock_directory(directory: Path, holder: str) -> DirectoryLock:
    """Lock `directory` until the lock is closed or the process ends, even by a crash.

    `holder` describes this process in the StorageError of a second process. Raises StorageError if another process
    holds the lock, DamagedError if the lock record is unreadable, and OSError.
    """
    path = directory / LOCK_FILE
    make_file(path)
    lock = path.open("r+", errors="replace")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = lock.readline().rstrip() or "another process"
        lock.close()
        raise StorageError(
            f"{directory} is in use by {other}: stop that process, or start this one with another --data"
        ) from None
    try:
        return DirectoryLock(lock, holder)
    except BaseException:
        lock.close()
        raise


def lock_holder(directory: Path) -> str | None:
    """Return a description of the process that holds the lock on `directory`, None if there is none. Raises OSError."""
    path = directory / LOCK_FILE
    if not path.exists():
        return None
    with path.open(errors="replace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.readline().rstrip() or "another process"
    return None
