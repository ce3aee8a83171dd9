"""A file as version 1 of the schema had it: promise and log, and no state."""

import sqlite3
from contextlib import closing
from pathlib import Path

from storage.directory import DATA_FILE, LOCK_FILE, make_directory
from storage.rows import checksum, with_checksum
from tests.storage.states import entry

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


def make_version_1(directory: Path) -> None:
    """Boot 5 of node n1, incarnation 77: it promised 3.n2, accepted slots 1, 2, 3 and 5, and knows 3 to be chosen."""
    make_directory(directory)
    (directory / LOCK_FILE).write_text("process 1, node n1 of cluster test\n5")
    with closing(sqlite3.connect(directory / DATA_FILE)) as connection, connection:
        connection.executescript(_TABLES)
        connection.execute(
            "INSERT INTO identity VALUES (?, ?, ?, ?, ?, ?)", with_checksum("test", "n1", 77, 5, "n1,n2,n3")
        )
        connection.execute("INSERT INTO acceptor VALUES (?, ?, ?, ?)", with_checksum(3, "n2", 3))
        for slot, (round_, node), value in map(entry, (1, 2, 3, 5)):
            row = (slot, round_, node, value, checksum(f"{slot} {round_} {node}", value))
            connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", row)
