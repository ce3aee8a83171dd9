"""Durable state in one SQLite file: one connection, one transaction for each `write`, on disk when it returns.

Every choice below is for rules 1, 4 and 5. WAL with synchronous=FULL syncs the log at each commit. SQLite's automatic
checkpoint swallows a failed sync, so it is off, and `write` makes explicit ones, which report it. One connection holds
the file exclusively: several could corrupt a WAL (SQLite 3.7.0 to 3.51.2), and a second process must not start.

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html
"""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from paxos.ready import Write
from paxos.types import NodeId, PValue, Slot
from storage import wal
from storage.base import Recovered, StorageError, has_records
from storage.directory import hold, make_directory, make_file, sync_directory
from storage.errors import damaged, reported, unusable
from storage.log import load_entries, load_marks, store_entries, store_marks
from storage.marks import Marks
from storage.rows import decode_text
from storage.schema import claim

DATA_FILE = "kvstore.db"
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
_FRAMES_A_COMMIT = 3
_ROW_BYTES = 64


def open_storage(directory: Path, cluster: str, node: NodeId, members: Collection[NodeId]) -> "SqliteStorage":
    """Open the data of `node` of `cluster` in `directory`, or create it, and hold it until `close` or the end of the
    process. `members` are the voters, the same at every opening. Raises StorageError when that is not possible, or the
    data is damaged, lost, another's, of other members or of a newer version."""
    path = directory / DATA_FILE
    with ExitStack() as resources:
        try:
            make_directory(directory)
            held = resources.enter_context(closing(hold(directory, f"node {node} of cluster {cluster}")))
            _refuse_lost(path, held.last_boot)
            _refuse_broken_wal(path)
            make_file(path)
            with reported(path):
                connection = _connect(path)
                resources.callback(connection.close)
                # What an earlier life left in the WAL is synced into the database before anything rests on it (rule 4).
                _checkpoint(connection, path, "TRUNCATE")
                identity = claim(connection, path, cluster, node, members=members, last_boot=held.last_boot)
                marks = load_marks(connection, path)
            sync_directory(directory)
            held.sign(identity.boot)
        except OSError as error:
            raise unusable(directory, error) from error
        return SqliteStorage(path, connection, marks.recovered(identity, 0), resources.pop_all())


def _refuse_lost(path: Path, last_boot: int) -> None:
    """Asked before SQLite opens it: beside an empty database it would delete the write-ahead log."""
    if last_boot and not (path.exists() and path.stat().st_size):
        raise damaged(path, f"the database is gone, but this replica had reached boot {last_boot}")


def _refuse_broken_wal(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    frame = wal.unreachable(log)
    if frame is not None:
        where = f"frame {frame}" if frame else "the header"
        raise damaged(log, f"{where} of the write-ahead log is damaged and hides the transactions behind it")


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

    def __init__(self, path: Path, connection: sqlite3.Connection, recovered: Recovered, resources: ExitStack) -> None:
        self._path = path
        self._connection = connection
        self._recovered = recovered
        self._resources = resources
        self._marks = Marks(recovered.promised, recovered.chosen, recovered.last)
        self._wal_bytes = 0
        self._sound = True

    def recovered(self) -> Recovered:
        """See Storage."""
        return self._recovered

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """See Storage."""
        with self._sound_after():
            return load_entries(self._connection, self._path, from_slot, upto, max_bytes, chosen=self._marks.chosen)

    def write(self, writes: list[Write]) -> None:
        """See Storage."""
        with self._sound_after():
            if not any(map(has_records, writes)):
                return
            marks = self._marks.after(writes)
            accepts = [entry for write in writes for entry in write.accepts]
            self._connection.execute("BEGIN IMMEDIATE")
            store_entries(self._connection, accepts)
            store_marks(self._connection, marks)
            self._connection.execute("COMMIT")
            self._marks = marks
            self._checkpoint_when_due(accepts)

    def _checkpoint_when_due(self, accepts: list[PValue]) -> None:
        """Bound the WAL. Its length is estimated: the file is used again from its start after a checkpoint, because
        overwriting takes half as long to sync as growing, and so its size tells nothing."""
        self._wal_bytes += _FRAMES_A_COMMIT * _FRAME_BYTES + sum(_ROW_BYTES + len(entry.value) for entry in accepts)
        if self._wal_bytes >= CHECKPOINT_BYTES:
            _checkpoint(self._connection, self._path, "PASSIVE")
            self._wal_bytes = 0

    def close(self) -> None:
        """See Storage. Raises StorageError when the last checkpoint fails; nothing is lost by that."""
        with self._resources:
            if self._sound:
                with self._sound_after():
                    _checkpoint(self._connection, self._path, "TRUNCATE")
                self._sound = False

    @contextmanager
    def _sound_after(self) -> Iterator[None]:
        """Whatever leaves this block by an exception, an interrupt included, leaves the storage unusable."""
        if not self._sound:
            raise StorageError(f"{self._path} was closed, or failed before: start the replica again")
        self._sound = False
        with reported(self._path):
            yield
        self._sound = True
