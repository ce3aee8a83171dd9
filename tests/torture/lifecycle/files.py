"""What the files of a replica that does not run tell, and what is done to them."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.errors import BenchError
from bench.lifecycle.replicas import DATABASE, LOG

LOCK = "lock"


def opened_since(data: Path, moment: float) -> bool:
    """Whether a replica has opened its data since then, seconds since the version: it signs for it first."""
    lock = data / LOCK
    return lock.exists() and lock.stat().st_mtime >= moment


def under_way(data: Path) -> list[str]:
    """What a replica that was killed was in the midst of, as far as its files tell; they are not touched."""
    with _copy(data) as connection:
        return list(_under_way(connection)) if connection is not None else ["starting"]


def _under_way(connection: sqlite3.Connection) -> Iterator[str]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < 2:
        yield "migrating" if version else "starting"
        return
    (chosen,) = connection.execute("SELECT chosen FROM acceptor").fetchone()
    (applied,) = connection.execute("SELECT applied FROM progress").fetchone()
    cut, live, compacted, compact, staged = connection.execute(
        "SELECT cut, live, compacted, compact, staged FROM bounds"
    ).fetchone()
    idle = {"a": "b", "b": "a"}[live]
    if connection.execute("SELECT 1 FROM log WHERE slot <= ? LIMIT 1", (cut,)).fetchone():
        yield "cutting"
    if compacted < compact:
        yield "compacting"
    if staged:
        yield "installing"
    for table, column in ((f"records_{idle}", "position"), (f"history_{idle}", "last")):
        if connection.execute(f"SELECT 1 FROM {table} WHERE {column} > ? LIMIT 1", (staged,)).fetchone():
            yield "clearing"  # what was replaced
            break
    if chosen > applied + 500:
        yield "replaying"


@contextmanager
def _copy(data: Path) -> Iterator[sqlite3.Connection | None]:
    """A copy of the database with its log; None where there is none yet."""
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
    """Make the data of a replica that stopped in order what version 1 of its schema was: promise and log, and no state.
    Raises BenchError when the log was cut: then the state is the only one who knows what was in it."""
    with closing(sqlite3.connect(data / DATABASE, isolation_level=None)) as connection:
        ((cut,),) = connection.execute("SELECT cut FROM bounds")
        if cut:
            raise BenchError(f"{data}: the log is cut up to slot {cut}, nothing before has its schema any more")
        tables = ("progress", "bounds", "records_a", "history_a", "records_b", "history_b")
        dropped = "".join(f"DROP TABLE {table}; " for table in tables)
        connection.executescript(f"BEGIN; {dropped} PRAGMA user_version = 1; COMMIT;")
        ((node, cluster, boot),) = connection.execute("SELECT node, cluster, boot FROM identity")
    (data / LOCK).write_text(f"process 1, node {node} of cluster {cluster}\n{boot}")


def flip(file: Path, bit: int) -> None:
    """Turn one bit of it over; durable or not, the next who opens it sees that."""
    with file.open("r+b") as opened:
        opened.seek(bit // 8)
        byte = opened.read(1)[0]
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def set_aside(data: Path) -> int:
    """How often a replica found its data damaged, and began anew."""
    return len(list(data.glob("damaged-*")))


def now() -> float:
    """The clock of files."""
    return time.time()
