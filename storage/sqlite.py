"""Storage in one SQLite file: one connection, and one transaction for each `write`, durable when `write` returns.

`storage.connection` has the settings that make it so.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from paxos.ready import Write
from paxos.types import NodeId, PValue, Slot
from storage import wal
from storage.base import DiskFullError, DiskSpace, Recovered, StatePage, StateWrite, StorageError, has_records
from storage.compaction import units_of
from storage.connection import checkpoint, connect
from storage.directory import (
    DATA_FILE,
    LOCK_FILE,
    DirectoryLock,
    lock_directory,
    make_directory,
    make_file,
    sync_directory,
)
from storage.errors import damaged, is_full, translated_errors, unusable
from storage.file_watch import FileWatch
from storage.hard_state import HardState
from storage.key_space import NO_END, KeySpace
from storage.lock_record import LockRecord
from storage.log import load_entries, store_entries
from storage.maintenance import Maintenance
from storage.manifest import Manifest, load_manifest, store_manifest
from storage.reserve import Reserve
from storage.schema import claim

T = TypeVar("T")

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""Approximate length of the WAL at which it is checkpointed: a checkpoint takes milliseconds, and a start reads the WAL
quickly."""

_PAGE_BYTES = 4096
_FRAME_BYTES = _PAGE_BYTES + 24
_FRAMES_PER_COMMIT = 8
_ROW_BYTES = 64
_SLICE_UNITS = 256
"""Units of one slice of maintenance, in `maintain` and in `write`. Fewer, larger slices touch fewer pages."""
_UNITS_PER_WRITE = 16
_MOST_UNITS = 4 * _SLICE_UNITS
"""Most units of maintenance in the transaction of a write, which other writes wait for. The next ones do the rest."""
_MOST_OWED = 16 * _SLICE_UNITS
"""Most units that are left to later writes."""


def open_storage(
    directory: Path, cluster: str, node: NodeId, members: Collection[NodeId], *, reserve_bytes: int = 0
) -> "SqliteStorage":
    """Open or create the data of `node` of `cluster` in `directory`, and lock the directory until `close` or the end of
    the process.

    `members` are the first voters for new data, none for a replica that joins. `reserve_bytes` is the size of the
    reserve for a full disk, which is given up if the data cannot be opened without it. Raises DamagedError if the data
    is damaged or lost, and StorageError if the directory is in use or unusable, or the data belongs to another node or
    has a newer version.
    """
    reserve = Reserve(directory, reserve_bytes)
    try:
        return _open(directory, cluster, node, members, reserve)
    except DiskFullError:
        if not reserve.give_up():
            raise
        return _open(directory, cluster, node, members, reserve)


def _open(
    directory: Path, cluster: str, node: NodeId, members: Collection[NodeId], reserve: Reserve
) -> "SqliteStorage":
    path = directory / DATA_FILE
    with ExitStack() as resources:
        try:
            make_directory(directory)
            lock = resources.enter_context(closing(lock_directory(directory, f"node {node} of cluster {cluster}")))
            lock.load_record()
            refuse_lost(path, lock.record)
            refuse_broken_wal(path)
            make_file(path)
            with translated_errors(path):
                connection = connect(path)
                resources.callback(connection.close)
                resources.callback(lock.update_record, open=False)  # closing the connection removes the WAL
                lock.update_record(open=False)  # before the checkpoint empties the WAL
                # The WAL of an earlier run is synced into the database before any vote depends on it (rule 4).
                checkpoint(connection, path, "TRUNCATE")
                identity, lineage = claim(connection, path, cluster, node, members=members, last_boot=lock.record.boot)
                manifest, log_bytes = load_manifest(connection, path)
                space = KeySpace(connection, path, manifest)
            sync_directory(directory)
            lock.update_record(boot=identity.boot, incarnation=identity.incarnation, open=True)
        except OSError as error:
            raise unusable(directory, error) from error
        recovered = manifest.hard_state.recovered(identity, log_bytes)
        recovered.replaces, recovered.lineage = lock.record.replaces, lineage
        storage = SqliteStorage(
            path, connection, space, manifest, recovered, lock=lock, reserve=reserve, resources=resources.pop_all()
        )
        storage.verify_files()
        return storage


def refuse_lost(path: Path, record: LockRecord) -> None:
    """Raise DamagedError if the database or its WAL is missing although the lock record says that it exists, or if it
    was to be set aside.

    Call it before SQLite opens the file: SQLite deletes the WAL of an empty database.
    """
    log = wal_of(path)
    if record.replaces and record.replaces == record.incarnation:
        raise damaged(path, "the replica ended while it set this damaged data aside")
    if record.boot and not (path.exists() and path.stat().st_size):
        raise damaged(path, f"the database is missing, but this replica had reached boot {record.boot}")
    if record.open and not (log.exists() and log.stat().st_size):
        raise damaged(log, "the write-ahead log is missing, but the replica did not shut down cleanly")


def refuse_broken_wal(path: Path) -> None:
    """Raise DamagedError if damage of the WAL hides committed transactions.

    Call it before SQLite opens the file: SQLite ignores these transactions silently.
    """
    log = wal_of(path)
    frame = wal.unreachable(log)
    if frame is not None:
        where = f"frame {frame}" if frame else "the header"
        raise damaged(log, f"{where} of the write-ahead log is damaged and hides the transactions after it")


def wal_of(path: Path) -> Path:
    """Return the path of the write-ahead log of the database at `path`."""
    return path.with_name(path.name + "-wal")


class SqliteStorage:
    """A Storage in one SQLite file, opened by `open_storage`. Any thread may use it, but only one at a time.

    After any error it refuses further calls: the content of the disk is only known after the file is opened again (rule
    4).
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        space: KeySpace,
        manifest: Manifest,
        recovered: Recovered,
        *,
        lock: DirectoryLock,
        reserve: Reserve,
        resources: ExitStack,
    ) -> None:
        self.space = DiskSpace.AMPLE
        self._path = path
        self._connection = connection
        self._key_space = space
        self._maintenance = Maintenance(connection, space, manifest.hard_state.truncation.slot)
        self._manifest = manifest
        self._recovered = recovered
        self._files = FileWatch((wal_of(path), path.with_name(LOCK_FILE)), growing=(path,))
        self._lock = lock
        self._reserve = reserve
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
                return self._key_space.staged_page(after, max_bytes)
            self._compact_further()
            return self._key_space.page(after, max_bytes, self._manifest)

    def _compact_further(self) -> None:
        """Do one slice of compaction, so that a reader that waits for compaction makes progress with each call, and
        further slices while records at the base are missing."""
        if self._key_space.compacted < self._manifest.hard_state.compact:
            self._maintain_slice()
        while self._key_space.incomplete:
            self._maintain_slice()

    def write(self, writes: Sequence[Write]) -> None:
        """See Storage."""
        with self._unusable_on_error():
            if not any(map(has_records, writes)):
                return
            self._checkpoint_if_due()
            hard_state = self._manifest.hard_state.after(writes)
            self._with_reserve(partial(self._store, writes, hard_state))
            self._files.verify()  # before the votes of the writes leave
            if not self._reserve.held:
                self._update_space()

    def tidy(self) -> None:
        """See Storage."""
        with self._unusable_on_error():
            self._checkpoint_if_due()

    def _store(self, writes: Sequence[Write], hard_state: HardState) -> None:
        """Store `writes` in a transaction."""
        self._make_room(writes)
        accepts = [entry for write in writes for entry in write.accepts if entry.slot > hard_state.truncation.slot]
        sizes = _sizes(accepts, writes)
        with self._transaction():
            store_entries(self._connection, accepts)
            self._maintenance.stored(self._key_space.store(writes))
            removed = self._maintain_with_write(hard_state, sum(map(units_of, sizes)))
            self._store_manifest(hard_state)
        self._wal_bytes += _wal_bytes(removed) + sum(sizes) + len(sizes) * _ROW_BYTES

    def _with_reserve(self, work: Callable[[], T]) -> T:
        """Return the result of `work`. If the disk is full, roll the transaction back, give the reserve up, and do the
        same work once more.

        SQLite reports a full disk when it cannot write, before it syncs. So no sync has failed, and nothing was
        reported (rule 4): whether or not the frames of the transaction are complete on the disk, it is the same
        transaction that is written over them.
        """
        before = self._manifest
        try:
            return work()
        except sqlite3.Error as error:
            if not (is_full(error) and self._reserve.give_up()):
                raise
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._manifest = before
        self._key_space = KeySpace(self._connection, self._path, before)
        self._maintenance = Maintenance(self._connection, self._key_space, before.hard_state.truncation.slot)
        self.space = DiskSpace.LOW
        return work()

    def _update_space(self) -> None:
        (pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        self.space = self._reserve.space(pages * _PAGE_BYTES, self.space)

    def maintain(self) -> bool:
        """See Storage."""
        with self._unusable_on_error():
            if not self._maintenance.pending(self._manifest.hard_state):
                return False
            self._maintain_slice()
            return self._maintenance.pending(self._manifest.hard_state)

    def verify_files(self) -> None:
        """See Storage."""
        with self._unusable_on_error():
            self._files.verify()
            self._update_space()

    def _maintain_slice(self) -> None:
        self._with_reserve(self._store_slice)
        self._checkpoint_if_due()

    def _store_slice(self) -> None:
        hard_state = self._manifest.hard_state
        with self._transaction():
            removed = self._maintenance.slice(_SLICE_UNITS, hard_state, idle=True)
            self._store_manifest(hard_state)
        self._wal_bytes += _wal_bytes(removed)

    def _make_room(self, writes: Sequence[Write]) -> None:
        """Remove invalid rows at the positions of a staged page, in separate transactions, so that the transaction of
        the page is short. No reader needs the removed rows, so an interruption is harmless."""
        staged = next((write.staged for write in writes if isinstance(write, StateWrite) and write.staged), None)
        if staged is None or not self._key_space.idle_has_garbage:
            return
        upto = staged.page.changes[-1].position if staged.page.changes else 0
        removed = 1
        while removed:
            with self._transaction():
                removed = self._maintenance.clear_idle_tables(
                    _SLICE_UNITS, upto if staged.page.progress is None else NO_END
                )
            self._wal_bytes += _wal_bytes(removed)
            self._checkpoint_if_due()

    def _maintain_with_write(self, hard_state: HardState, stored: int) -> int:
        """Do maintenance of three times the units stored, once these add up to a slice; return the units removed.

        A change causes three row operations in the long run: its run is removed, it becomes a record, and the record
        that it superseded is removed. Maintenance at this rate keeps the file bounded under any load.
        """
        if not self._maintenance.pending_under_load(hard_state):
            self._owed_units = 0
            return 0
        self._owed_units += 3 * stored + _UNITS_PER_WRITE
        if self._owed_units < _SLICE_UNITS:
            return 0
        units = max(min(self._owed_units, _MOST_UNITS), self._owed_units - _MOST_OWED)
        self._owed_units -= units
        return self._maintenance.slice(units, hard_state, idle=False)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run the block in a transaction. After an error the transaction stays open: the storage is unusable, and
        closing the file rolls the transaction back."""
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    def _store_manifest(self, hard_state: HardState) -> None:
        manifest = Manifest(hard_state, self._key_space.live.name, self._key_space.compacted)
        store_manifest(self._connection, self._manifest, manifest)
        self._manifest = manifest

    def _checkpoint_if_due(self) -> None:
        """Limit the length of the WAL with a checkpoint.

        The size of the file does not tell this length: after a checkpoint SQLite overwrites the file from its start,
        because syncing an overwritten file takes half as long as syncing a growing one. The length is estimated, with
        one page for each removed row, and read from the file when the estimate reaches the limit.
        """
        if self._wal_bytes < CHECKPOINT_BYTES:
            return
        self._wal_bytes = wal.length(wal_of(self._path))
        if self._wal_bytes < CHECKPOINT_BYTES:
            return
        try:
            self._with_reserve(partial(checkpoint, self._connection, self._path, "PASSIVE"))
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            return  # the WAL still has every frame; the next call tries again
        self._wal_bytes = 0

    def close(self) -> None:
        """Close the file, see Storage. Raises StorageError if the last checkpoint fails; no data is lost then."""
        with self._resources:
            if self._usable:
                with self._unusable_on_error():
                    self._lock.update_record(open=False)  # first: the checkpoint empties the WAL
                    self._with_reserve(partial(checkpoint, self._connection, self._path, "TRUNCATE"))
                self._usable = False

    @contextmanager
    def _unusable_on_error(self) -> Iterator[None]:
        """Run the block, and make the storage unusable if it raises any exception, including an interrupt."""
        if not self._usable:
            raise StorageError(f"{self._path} was closed or has failed: start the replica again")
        self._usable = False
        try:
            with translated_errors(self._path):
                yield
        except BaseException:
            with suppress(OSError):  # the end of the process may close the connection, which removes the WAL
                self._lock.update_record(open=False)
            raise
        self._usable = True


def _wal_bytes(removed: int) -> int:
    """Return the estimated bytes that a transaction which removed so many rows has added to the WAL."""
    return (_FRAMES_PER_COMMIT + removed) * _FRAME_BYTES


def _sizes(accepts: list[PValue], writes: Sequence[Write]) -> list[int]:
    """Return the bytes of each row to be stored."""
    sizes = [len(entry.value) for entry in accepts]
    for write in writes:
        if isinstance(write, StateWrite):
            changes = write.changes if write.staged is None else write.staged.page.changes
            sizes += [len(change.key) + len(change.value or b"") for change in changes]
    return sizes
