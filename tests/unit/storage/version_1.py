"""A file as version 1 of the schema had it: promise and log, and no state."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from paxos.types import Ballot, PValue, Slot
from storage.directory import DATA_FILE, LOCK_FILE, make_directory
from storage.rows import checksum, with_checksum
from tests.unit.storage.states import entry

_TABLES = """
CREATE TABLE "identity" (
   "cluster" TEXT NOT NULL,
   "node" TEXT NOT NULL,
   "incarnation" INTEGER NOT NULL,
   "boot" INTEGER NOT NULL,
   "members" TEXT NOT NULL,
   "checksum" INTEGER NOT NULL
) STRICT;
CREATE TABLE "acceptor" (
   "round" INTEGER NOT NULL,
   "node" TEXT NOT NULL,
   "chosen" INTEGER NOT NULL,
   "checksum" INTEGER NOT NULL
) STRICT;
CREATE TABLE "log" (
   "slot" INTEGER PRIMARY KEY,
   "round" INTEGER NOT NULL,
   "node" TEXT NOT NULL,
   "value" BLOB NOT NULL,
   "checksum" INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""


def make_version_1(
    directory: Path,
    *,
    cluster: str = "test",
    node: str = "n1",
    incarnation: int = 77,
    promised: Ballot = Ballot(3, "n2"),  # noqa: B008 - frozen
    chosen: Slot = 3,
    entries: Sequence[PValue] | None = None,
) -> None:
    """Boot 5 of `node`. By default it accepted slots 1, 2, 3 and 5."""
    make_directory(directory)
    (directory / LOCK_FILE).write_text(f"process 1, node {node} of cluster {cluster}\n5")
    with closing(sqlite3.connect(directory / DATA_FILE)) as connection, connection:
        connection.executescript(_TABLES)
        connection.execute(
            "INSERT INTO identity VALUES (?, ?, ?, ?, ?, ?)", with_checksum(cluster, node, incarnation, 5, "n1,n2,n3")
        )
        connection.execute("INSERT INTO acceptor VALUES (?, ?, ?, ?)", with_checksum(*promised, chosen))
        for slot, (round_, name), value in map(entry, (1, 2, 3, 5)) if entries is None else entries:
            row = (slot, round_, name, value, checksum(f"{slot} {round_} {name}", value))
            connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", row)
