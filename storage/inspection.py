"""Inspection of the data of a stopped replica, without changing or locking it.

A database of the current schema with an empty write-ahead log is opened in place, as immutable. In all other cases
SQLite would have to write to the file, so a temporary copy is inspected.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlite_utils import Database

from paxos.ready import Write
from paxos.types import PValue, Slot
from storage import schema
from storage.base import DiskSpace, Recovered, StatePage, StorageError, StoredIdentity
from storage.directory import DATA_FILE, read_lock_record
from storage.errors import damaged, translated_errors
from storage.key_space import KeySpace
from storage.lock_record import LockRecord
from storage.log import load_entries
from storage.manifest import Manifest, load_manifest
from storage.rows import decode_text
from storage.sqlite import refuse_broken_wal, refuse_lost, wal_of

_VERSION_AT = 60
"""Offset of the 4-byte user_version in a database file, see https://www.sqlite.org/fileformat2.html."""


class Inspection:
    """Data that is open for inspection, see `inspect`. Each method raises DamagedError if it finds damage."""

    def __init__(self, path: Path, connection: sqlite3.Connection, record: LockRecord, schema_version: int) -> None:
        self._path = path
        self._connection = connection
        self._record = record
        self.schema_version = schema_version
        """Schema version of the file."""

    def verify_pages(self) -> None:
        """Verify the structure of the file with SQLite's integrity check."""
        with translated_errors(self._path):
            (found,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise damaged(self._path, f"SQLite's integrity check reports: {found}")

    def identity(self) -> StoredIdentity:
        """Return the identity of the data, verified against the lock record."""
        with translated_errors(self._path):
            found = schema.load_identity(self._connection, self._path)
            schema.load_lineage(self._connection, self._path)
        if found.boot < self._record.boot:
            raise schema.older_copy(self._path, found.boot, self._record.boot)
        if self._record.incarnation not in {0, found.incarnation}:
            raise damaged(
                self._path,
                f"the file has other data of the replica (incarnation {found.incarnation:x}) than the lock record "
                f"names ({self._record.incarnation:x})",
            )
        return found

    def storage(self, identity: StoredIdentity) -> "ReadOnlyStorage":
        """Return the data as a Storage for reading."""
        with translated_errors(self._path):
            manifest, log_bytes = load_manifest(self._connection, self._path)
            return ReadOnlyStorage(
                self._connection, self._path, manifest, manifest.hard_state.recovered(identity, log_bytes)
            )


class ReadOnlyStorage:
    """A Storage for reading: it discards writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path, manifest: Manifest, recovered: Recovered) -> None:
        self._connection = connection
        self._path = path
        self.space = DiskSpace.AMPLE
        self._manifest = manifest
        self._space = KeySpace(connection, path, manifest)
        self._recovered = recovered

    def recovered(self) -> Recovered:
        """See Storage."""
        return self._recovered

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """See Storage."""
        hard_state = self._manifest.hard_state
        if max(from_slot, 1) <= hard_state.truncation.slot:
            return []
        with translated_errors(self._path):
            return load_entries(self._connection, self._path, from_slot, upto, max_bytes, chosen=hard_state.chosen)

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        """See Storage."""
        with translated_errors(self._path):
            if staged:
                return self._space.staged_page(after, max_bytes)
            return self._space.page(after, max_bytes, self._manifest)

    def write(self, writes: Sequence[Write]) -> None:
        """Discard `writes`."""

    def tidy(self) -> None:
        """See Storage."""

    def maintain(self) -> bool:
        """See Storage."""
        return False

    def verify_files(self) -> None:
        """See Storage."""

    def close(self) -> None:
        """See Storage."""


@contextmanager
def inspect(directory: Path) -> Iterator[Inspection]:
    """Open the data in `directory` for inspection. No replica may be using it.

    Raises DamagedError if the data is damaged, StorageError if there is none or its version is newer, and OSError.
    """
    path = directory / DATA_FILE
    record = read_lock_record(directory)
    refuse_lost(path, record)
    if not path.exists() or not path.stat().st_size:
        raise _no_data(directory)
    refuse_broken_wal(path)
    with ExitStack() as resources:
        version = _version_of(path)
        if version < schema.VERSION or _is_filled(wal_of(path)):
            scratch = Path(resources.enter_context(TemporaryDirectory(prefix="kvstore-check-")))
            connection = resources.enter_context(closing(open_copy(path, scratch)))
        else:
            uri = f"{path.absolute().as_uri()}?immutable=1"
            connection = resources.enter_context(closing(sqlite3.connect(uri, uri=True, isolation_level=None)))
        connection.text_factory = decode_text
        with translated_errors(path):
            version = schema.upgrade(Database(connection, execute_plugins=False), path)
        if not version:
            raise _no_data(directory)
        yield Inspection(path, connection, record, version)


def _no_data(directory: Path) -> StorageError:
    return StorageError(f"{directory} holds no data of a replica: name the directory that `kvstore serve --data` uses")


def _version_of(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(_VERSION_AT + 4)[_VERSION_AT:])


def _is_filled(log: Path) -> bool:
    return log.exists() and log.stat().st_size > 0


def open_copy(path: Path, scratch: Path) -> sqlite3.Connection:
    """Copy the database at `path` with its write-ahead log to the directory `scratch`, and open the copy."""
    copy = scratch / path.name
    shutil.copyfile(path, copy)
    if wal_of(path).exists():
        shutil.copyfile(wal_of(path), wal_of(copy))
    return sqlite3.connect(copy, isolation_level=None)
