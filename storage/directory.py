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


def hold(directory: Path, holder: str) -> IO[str]:
    """Take `directory` for this process until the returned file is closed or the process ends, however it ends.

    `holder` says who we are; a process that comes second reads it in its StorageError. Raises OSError too.
    """
    path = directory / LOCK_FILE
    make_file(path)
    lock = path.open("r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = lock.read() or "another process"
        lock.close()
        raise StorageError(f"{directory} is in use by {other}: stop that process, or give another --data") from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()}, {holder}")
    lock.flush()
    return lock
