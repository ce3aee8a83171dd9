"""Damaged data is moved away, so that a replica can start again without data (rule 5)."""

from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from storage.base import DamagedError, StorageError
from storage.directory import DATA_FILE, lock_directory, sync_directory
from storage.errors import translated_errors
from storage.inspection import open_copy
from storage.schema import load_identity


def set_aside(directory: Path) -> Path:
    """Move damaged data to a new subdirectory, record that in the lock record, and return the subdirectory.

    The program never reads the moved data again; an operator may examine it. Raises StorageError and OSError.
    """
    with closing(lock_directory(directory, "repair")) as lock:
        try:
            lock.load_record()
        except DamagedError:
            incarnation = _incarnation_in(directory / DATA_FILE)
        else:
            incarnation = lock.record.incarnation or lock.record.replaces
        destination = next(path for number in count(1) if not (path := directory / f"damaged-{number}").exists())
        destination.mkdir(mode=0o700)
        lock.update_record(incarnation=incarnation, replaces=incarnation)
        for path in sorted(directory.glob(f"{DATA_FILE}*")):
            path.rename(destination / path.name)
        sync_directory(directory)
        lock.update_record(boot=0, incarnation=0, open=False)
    return destination


def _incarnation_in(path: Path) -> int:
    """Return the incarnation of the data whose lock record is damaged, 0 if the database is unreadable, too."""
    with (
        suppress(StorageError, OSError),
        TemporaryDirectory(prefix="kvstore-repair-") as scratch,
        translated_errors(path),
        closing(open_copy(path, Path(scratch))) as connection,
    ):
        return load_identity(connection, path).incarnation
    return 0
