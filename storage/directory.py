"""The directory that holds a replica's data: made durably, and held by one process at a time (rule 28)."""

import fcntl
import os
from pathlib import Path
from typing import IO

from storage.base import StorageError

LOCK_FILE = "lock"
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


class Hold:
    """A directory that is this process's until `close`; see `hold`.

    The lock file has two lines: who holds the directory, and the boot that was reached in it.
    """

    def __init__(self, lock: IO[str], holder: str) -> None:
        self._lock = lock
        self._holder = holder
        boot = lock.read().partition("\n")[2]
        self.last_boot = int(boot) if boot.isdecimal() else 0
        """The boot that signed last, 0 when none did. Data that does not know of it is not what was left here."""
        self.sign(self.last_boot)

    def sign(self, boot: int) -> None:
        """Say who holds the directory, and that its data has reached `boot`; durable on return. Raises OSError."""
        self._lock.seek(0)
        self._lock.write(f"process {os.getpid()}, {self._holder}\n{boot}")
        self._lock.truncate()
        self._lock.flush()
        os.fsync(self._lock.fileno())

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()


def hold(directory: Path, holder: str) -> Hold:
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
    return Hold(lock, holder)
