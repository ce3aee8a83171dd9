"""Durable state in one SQLite file: one connection, one transaction for each `write`, on disk when it returns.

Every choice below is for rules 1, 4 and 5. WAL with synchronous=FULL syncs the log at each commit. SQLite's automatic
checkpoint swallows a failed sync, so it is off, and `write` makes explicit ones, which report it. One connection holds
the file exclusively: several could corrupt a WAL (SQLite 3.7.0 to 3.51.2), and a second process must not start.

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from paxos.ready import Write
from paxos.types import NodeId, PValue, Slot
from storage import wal
from storage.base import Recovered, StatePage, StateWrite, StorageError, has_records
from storage.compaction import units_of
from storage.directory import (
    DATA_FILE,
    DirectoryLock,
    LockRecord,
    lock_directory,
    make_directory,
    make_file,
    sync_directory,
)
from storage.errors import damaged, translated_errors, unusable
from storage.hard_state import HardState
from storage.key_space import NO_END, KeySpace
from storage.log import load_entries, store_entries
from storage.maintenance import Maintenance
from storage.manifest import Manifest, load_manifest, store_manifest
from storage.rows import decode_text
from storage.schema import claim

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""The WAL is copied into the database when it has grown by about this: milliseconds of work, soon read at a start."""

_PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),  # first: afterwards the WAL would live in shared memory
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", "ON", 1),  # macOS: a plain fsync stops at the drive's cache
    ("wal_autocheckpoint", "0", 0),
)
_FRAME_BYTES = 4096 + 24
_FRAMES_A_COMMIT = 8
_ROW_BYTES = 64
_SLICE_UNITS = 256
"""What is removed at once, by `tidy` or by a `write`: less often and more of it touches fewer pages."""
_UNITS_A_WRITE = 16


def open_storage(directory: Path, cluster: str, node: NodeId, members: Collection[NodeId]) -> "SqliteStorage":
    """Open the data of `node` of `cluster` in `directory`, or create it, and hold it until `close` or the end of the
    process. `members` are the voters that new data begins with, none for a replica that joins. Raises StorageError
    when that is not possible, or the data is damaged, lost, another's or of a newer version."""
    path = directory / DATA_FILE
    with ExitStack() as resources:
        try:
            make_directory(directory)
            lock = resources.enter_context(closing(lock_directory(directory, f"node {node} of cluster {cluster}")))
            refuse_lost(path, lock.record)
            refuse_broken_wal(path)
            make_file(path)
            with translated_errors(path):
                connection = _connect(path)
                resources.callback(connection.close)
                resources.callback(lock.update_record, open=False)  # SQLite takes the log away when it closes
                lock.update_record(open=False)  # before the log is emptied
                # What an earlier life left in the WAL is synced into the database before anything rests on it (rule 4).
                _checkpoint(connection, path, "TRUNCATE")
                identity = claim(connection, path, cluster, node, members=members, last_boot=lock.record.boot)
                bounds, log_bytes = load_manifest(connection, path)
                space = KeySpace(connection, path, bounds)
            sync_directory(directory)
            lock.update_record(boot=identity.boot, incarnation=identity.incarnation, open=True)
        except OSError as error:
            raise unusable(directory, error) from error
        recovered = bounds.hard_state.recovered(identity, log_bytes)
        recovered.replaces = lock.record.replaces
        return SqliteStorage(path, connection, space, bounds, recovered, lock=lock, resources=resources.pop_all())


def refuse_lost(path: Path, record: LockRecord) -> None:
    """Asked before SQLite opens it: beside an empty database it would delete the write-ahead log."""
    log = wal_of(path)
    if record.boot and not (path.exists() and path.stat().st_size):
        raise damaged(path, f"the database is gone, but this replica had reached boot {record.boot}")
    if record.open and not (log.exists() and log.stat().st_size):
        raise damaged(log, "the write-ahead log is gone, but the replica did not stop in order")


def refuse_broken_wal(path: Path) -> None:
    """Asked before SQLite opens it: it would drop in silence what it cannot reach."""
    log = wal_of(path)
    frame = wal.unreachable(log)
    if frame is not None:
        where = f"frame {frame}" if frame else "the header"
        raise damaged(log, f"{where} of the write-ahead log is damaged and hides the transactions behind it")


def wal_of(path: Path) -> Path:
    """The write-ahead log of the database at `path`."""
    return path.with_name(path.name + "-wal")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = decode_text
        for name, value, _ in _PRAGMAS:
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
        _verify_pragmas(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _verify_pragmas(connection: sqlite3.Connection, path: Path) -> None:
    for name, value, expected in _PRAGMAS:
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != expected:
            raise StorageError(
                f"{path}: SQLite {sqlite3.sqlite_version} answers {found} to PRAGMA {name} = {value}, without which a "
                "power cut could undo a vote: put the data on a local file system, or install a full build of SQLite"
            )


def _checkpoint(connection: sqlite3.Connection, path: Path, mode: str) -> None:
    busy, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    if busy or moved != frames:
        raise StorageError(
            f"{path}: only {moved} of {frames} frames of the write-ahead log could be moved into the database: "
            "close any other program that has it open, and start the replica again"
        )


class SqliteStorage:
    """See Storage; `open_storage` makes it. Another thread than the one that opened it may use it, one at a time.

    After any error it refuses further use: what the disk holds is only known after opening it again (rule 4).
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        space: KeySpace,
        bounds: Manifest,
        recovered: Recovered,
        *,
        lock: DirectoryLock,
        resources: ExitStack,
    ) -> None:
        self._path = path
        self._connection = connection
        self._space = space
        self._maintenance = Maintenance(connection, space, bounds.hard_state.truncation.slot)
        self._manifest = bounds
        self._recovered = recovered
        self._lock = lock
        self._resources = resources
        self._wal_bytes = 0
        self._owed_units = 0
        self._usable = True

    def recovered(self) -> Recovered:
        """See Storage."""
        return self._recovered

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """See Storage."""
        with self._unusable_on_error():
            hard_state = self._manifest.hard_state
            if max(from_slot, 1) <= hard_state.truncation.slot:
                return []
            return load_entries(self._connection, self._path, from_slot, upto, max_bytes, chosen=hard_state.chosen)

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        """See Storage."""
        with self._unusable_on_error():
            if staged:
                return self._space.staged_page(after, max_bytes)
            self._compact_further()
            return self._space.page(after, max_bytes, self._manifest)

    def _compact_further(self) -> None:
        """A little, so that whoever needs more need only ask again; and until the state is whole."""
        if self._space.compacted < self._manifest.hard_state.compact:
            self._maintain_slice()
        while self._space.incomplete:
            self._maintain_slice()

    def write(self, writes: Sequence[Write]) -> None:
        """See Storage."""
        with self._unusable_on_error():
            if not any(map(has_records, writes)):
                return
            hard_state = self._manifest.hard_state.after(writes)
            self._make_room(writes)
            accepts = [entry for write in writes for entry in write.accepts if entry.slot > hard_state.truncation.slot]
            sizes = _sizes(accepts, writes)
            with self._transaction():
                store_entries(self._connection, accepts)
                self._maintenance.stored(self._space.store(writes))
                removed = self._maintain_with_write(hard_state, sum(map(units_of, sizes)))
                self._store_manifest(hard_state)
            self._checkpoint_when_due(removed, sum(sizes) + len(sizes) * _ROW_BYTES)

    def maintain(self) -> bool:
        """See Storage."""
        with self._unusable_on_error():
            if not self._maintenance.pending(self._manifest.hard_state):
                return False
            self._maintain_slice()
            return self._maintenance.pending(self._manifest.hard_state)

    def _maintain_slice(self) -> None:
        hard_state = self._manifest.hard_state
        with self._transaction():
            removed = self._maintenance.slice(_SLICE_UNITS, hard_state, idle=True)
            self._store_manifest(hard_state)
        self._checkpoint_when_due(removed)

    def _make_room(self, writes: Sequence[Write]) -> None:
        """Remove what a staged page would find in its place, in transactions of their own, so that its own is short.
        None of it counts, so nothing changes if it ends here."""
        staged = next((write.staged for write in writes if isinstance(write, StateWrite) and write.staged), None)
        if staged is None or not self._space.idle_has_garbage:
            return
        upto = staged.page.changes[-1].position if staged.page.changes else 0
        removed = 1
        while removed:
            with self._transaction():
                removed = self._maintenance.clear_idle(_SLICE_UNITS, upto if staged.page.progress is None else NO_END)
            self._checkpoint_when_due(removed)

    def _maintain_with_write(self, hard_state: HardState, stored: int) -> int:
        """Remove three times as much as is stored, once that is worth a slice: a change is gathered, becomes a record
        and has another one go. So the file is bounded under any load."""
        if not self._maintenance.pressing(hard_state):
            self._owed_units = 0
            return 0
        self._owed_units += 3 * stored + _UNITS_A_WRITE
        if self._owed_units < _SLICE_UNITS:
            return 0
        units, self._owed_units = self._owed_units, 0
        return self._maintenance.slice(units, hard_state, idle=False)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """An error leaves it open; the storage is not used again, and closing rolls it back."""
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    def _store_manifest(self, hard_state: HardState) -> None:
        bounds = Manifest(hard_state, self._space.live.name, self._space.compacted)
        store_manifest(self._connection, self._manifest, bounds)
        self._manifest = bounds

    def _checkpoint_when_due(self, removed: int, stored_bytes: int = 0) -> None:
        """Bound the WAL. Its size tells nothing: the file is used again from its start after a checkpoint, because
        overwriting takes half as long to sync as growing. Its length is first estimated, with a page for each row that
        was removed, and looked up when that is too much."""
        self._wal_bytes += (_FRAMES_A_COMMIT + removed) * _FRAME_BYTES + stored_bytes
        if self._wal_bytes < CHECKPOINT_BYTES:
            return
        self._wal_bytes = wal.length(wal_of(self._path))
        if self._wal_bytes >= CHECKPOINT_BYTES:
            _checkpoint(self._connection, self._path, "PASSIVE")
            self._wal_bytes = 0

    def close(self) -> None:
        """See Storage. Raises StorageError when the last checkpoint fails; nothing is lost by that."""
        with self._resources:
            if self._usable:
                with self._unusable_on_error():
                    self._lock.update_record(open=False)  # first: afterwards the log is empty
                    _checkpoint(self._connection, self._path, "TRUNCATE")
                self._usable = False

    @contextmanager
    def _unusable_on_error(self) -> Iterator[None]:
        """Whatever leaves this block by an exception, an interrupt included, leaves the storage unusable."""
        if not self._usable:
            raise StorageError(f"{self._path} was closed, or failed before: start the replica again")
        self._usable = False
        try:
            with translated_errors(self._path):
                yield
        except BaseException:
            with suppress(OSError):  # the connection may be closed by the end of the process, and the log goes with it
                self._lock.update_record(open=False)
            raise
        self._usable = True


def _sizes(accepts: list[PValue], writes: Sequence[Write]) -> list[int]:
    """Bytes of each row that will be stored."""
    sizes = [len(entry.value) for entry in accepts]
    for write in writes:
        if isinstance(write, StateWrite):
            changes = write.changes if write.staged is None else write.staged.page.changes
            sizes += [len(change.key) + len(change.value or b"") for change in changes]
    return sizes
