"""The files of a replica that has ended: its last activities, and damage to the files."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cluster import DATABASE, LOG
from bench.errors import BenchError

LOCK = "lock"
MAX_UNAPPLIED = 500
"""Number of chosen but not applied slots above which a replica is replaying its log."""


def opened_since(data: Path, moment: float) -> bool:
    """Return whether a replica has opened its data since `moment`, a time of `now`."""
    lock = data / LOCK
    return lock.exists() and lock.stat().st_mtime >= moment


def now() -> float:
    """Return the time of the clock that file timestamps use."""
    return time.time()


def under_way(data: Path) -> list[str]:
    """Return the activities of a replica at the time of its kill, according to a copy of its files."""
    with _copy(data) as connection:
        return list(_under_way(connection)) if connection is not None else ["starting"]


def _under_way(connection: sqlite3.Connection) -> Iterator[str]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < 2:
        yield "migrating" if version else "starting"
        return
    (chosen,) = connection.execute("SELECT chosen FROM acceptor").fetchone()
    (applied,) = connection.execute("SELECT applied FROM progress").fetchone()
    truncated, live, compacted, compact, staged = connection.execute(
        "SELECT cut, live, compacted, compact, staged FROM bounds"
    ).fetchone()
    idle = {"a": "b", "b": "a"}[live]
    if connection.execute("SELECT 1 FROM log WHERE slot <= ? LIMIT 1", (truncated,)).fetchone():
        yield "truncating"
    if compacted < compact:
        yield "compacting"
    if staged:
        yield "installing"
    for table, column in ((f"records_{idle}", "position"), (f"history_{idle}", "last")):
        if connection.execute(f"SELECT 1 FROM {table} WHERE {column} > ? LIMIT 1", (staged,)).fetchone():
            yield "clearing"  # the state that a snapshot replaced
            break
    if chosen > applied + MAX_UNAPPLIED:
        yield "replaying"


@contextmanager
def _copy(data: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a copy of the database with its write-ahead log; yield None when there is no database yet."""
    if not (data / DATABASE).exists() or not (data / DATABASE).stat().st_size:
        yield None
        return
    with TemporaryDirectory(dir=data.parent) as directory:
        for name in (DATABASE, LOG):
            if (data / name).exists():
                shutil.copyfile(data / name, Path(directory) / name)
        with closing(sqlite3.connect(Path(directory) / DATABASE)) as connection:
            yield connection


def downgrade(data: Path) -> None:
    """Convert the data of a stopped replica to version 1 of the schema, which has no applied state and no founding.

    The data must be that of all members: the membership of migrated data begins without incarnations. Raises BenchError
    when the log was truncated, because only the applied state contains the truncated part.
    """
    with closing(sqlite3.connect(data / DATABASE, isolation_level=None)) as connection:
        ((truncated,),) = connection.execute("SELECT cut FROM bounds")
        if truncated:
            raise BenchError(f"{data} cannot be downgraded: its log was truncated up to slot {truncated}")
        state = ("records_a", "history_a", "records_b", "history_b")
        tables = ("lineage", "seen", "granted", "founding", "restored", "progress", "bounds", *state)
        dropped = "".join(f"DROP TABLE {table}; " for table in tables)
        connection.executescript(f"BEGIN; {dropped} PRAGMA user_version = 1; COMMIT;")
        ((node, cluster, boot),) = connection.execute("SELECT node, cluster, boot FROM identity")
    (data / LOCK).write_text(f"process 1, node {node} of cluster {cluster}\n{boot}")


def damageable(data: Path) -> list[Path]:
    """Return the files of the data of a replica that have content, in order: database, write-ahead log, lock and
    reserve."""
    return sorted(path for path in data.iterdir() if path.is_file() and path.stat().st_size)


def flip(file: Path, bit: int) -> None:
    """Invert one bit of a file."""
    with file.open("r+b") as opened:
        opened.seek(bit // 8)
        byte = opened.read(1)[0]
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def set_aside(data: Path) -> int:
    """Return how often a replica found its data damaged and set it aside."""
    return len(list(data.glob("damaged-*")))
