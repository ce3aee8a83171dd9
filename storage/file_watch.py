"""Detection of files that were removed, replaced or cut short under a running process.

An open file can be written after its directory entry is gone: every write succeeds, and the data is lost when the
process ends. Therefore the storage compares the files at their paths with those that it opened (rule 30).
"""

from collections.abc import Collection
from pathlib import Path

from storage.base import StorageError


class FileWatch:
    """The files of one data directory, as they were when they were opened. It opens no file: closing a second
    descriptor of a database would release the locks of SQLite."""

    def __init__(self, paths: Collection[Path], *, growing: Collection[Path] = ()) -> None:
        """Remember the files at `paths`, and those at `growing`, which never become shorter. Raises OSError if a file
        does not exist."""
        self._growing = frozenset(growing)
        self._opened = {path: path.stat() for path in (*growing, *paths)}

    def verify(self) -> None:
        """Raise StorageError if one of the files was removed, replaced or cut short."""
        for path, opened in self._opened.items():
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                raise _moved(path, "was removed") from None
            except OSError as error:
                raise _moved(path, f"could not be reached ({error.strerror})") from error
            if (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino):
                raise _moved(path, "was replaced by another file")
            if path in self._growing:
                if found.st_size < opened.st_size:
                    raise _moved(path, f"was cut from {opened.st_size} to {found.st_size} bytes")
                self._opened[path] = found


def _moved(path: Path, what: str) -> StorageError:
    return StorageError(
        f"{path} {what} while the replica ran, so the replica stops: what it stores would be lost. Put the data "
        "directory back and start the replica again; if the data is lost, run `kvstore member replace` for this member"
    )
