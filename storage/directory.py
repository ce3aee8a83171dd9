"""The directory that holds a replica's data: made durably, and lock by one process at a time (rule 28)."""

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
    """Create `directory` and what is missing above it, so that it survives a power cut. Raises OSError."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def make_file(path: Path) -> None:
    """Create an empty file that only its owner can read, if it is not there, so that it survives a power cut."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, DATA_MODE))
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable: syncing a file does not sync the entry that leads to it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LockRecord(msgspec.Struct, frozen=True):
    """What the lock file says of the data beside it, so that data which does not fit is seen to be other data.

    `boot` and `incarnation` are those that signed last, 0 when none did. `replaces` is the incarnation of damaged data
    that was set aside for it. While `open`, there is a write-ahead log that holds something.
    """

    version: int = 1
    boot: int = 0
    incarnation: int = 0
    replaces: int = 0
    open: bool = False


class DirectoryLock:
    """A directory that is this process's until `close`; see `hold`.

    The lock file has two lines: who holds the directory, and the LockRecord of what is in it.
    """

    def __init__(self, lock: IO[str], holder: str) -> None:
        self._lock = lock
        self._holder = holder
        self.record = read_lock_record(lock)
        self.update_record()

    def update_record(self, **fields: int | bool) -> None:
        """Say who holds the directory, and what else is known of its data now; durable on return. Raises OSError."""
        self.record = msgspec.structs.replace(self.record, **fields)
        self._lock.seek(0)
        self._lock.write(f"process {os.getpid()}, {self._holder}\n{msgspec.json.encode(self.record).decode()}\n")
        self._lock.truncate()
        self._lock.flush()
        os.fsync(self._lock.fileno())

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()


def read_lock_record(lock: IO[str]) -> LockRecord:
    """What the lock file says of the data. Raises DamagedError, and StorageError for one of a newer version."""
    line = lock.read().partition("\n")[2].strip()
    if line.isdecimal():
        return LockRecord(boot=int(line))  # as the first releases wrote it
    try:
        record = msgspec.json.decode(line or "{}", type=LockRecord)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{lock.name} is damaged: it does not say whose data is beside it") from error
    if record.version > LOCK_RECORD_VERSION:
        raise StorageError(f"{lock.name} was written by a newer version of this program: start that version")
    return record


def set_aside(directory: Path) -> Path:
    """Move damaged data out of the way, into a directory of its own beside it, and sign for that. Gives the new place.

    What is stored there is not read again by this program; it is for people. Raises StorageError and OSError.
    """
    with closing(lock_directory(directory, "repair")) as lock:
        place = next(path for number in count(1) if not (path := directory / f"damaged-{number}").exists())
        place.mkdir(mode=0o700)
        lock.update_record(replaces=lock.record.incarnation or lock.record.replaces)
        for path in sorted(directory.glob(f"{DATA_FILE}*")):
            path.rename(place / path.name)
        sync_directory(directory)
        lock.update_record(boot=0, incarnation=0, open=False)
    return place


def lock_directory(directory: Path, holder: str) -> DirectoryLock:
    """Take `directory` for this process until the hold is closed or the process ends, however it ends.

    `holder` says who we are; a process that comes second reads it in its StorageError. Raises OSError too.
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
            f"{directory} is in use by {other}: stop that process, or give this one its own --data"
        ) from None
    try:
        return DirectoryLock(lock, holder)
    except BaseException:
        lock.close()
        raise


def lock_holder(directory: Path) -> str | None:
    """Who holds `directory` at this moment, None when nobody does; it is not taken from anybody. Raises OSError."""
    path = directory / LOCK_FILE
    if not path.exists():
        return None
    with path.open(errors="replace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.readline().rstrip() or "another process"
    return None
