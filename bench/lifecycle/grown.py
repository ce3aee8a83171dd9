"""A cluster with many keys, sooner than by putting them one after the other: out of a backup that nobody took.

The file is of the format that `kvstore restore` takes, which verifies all of it. The restored replicas have no log yet:
that comes with the load that follows.
"""

import asyncio
import hashlib
import os
import random
import sqlite3
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from bench.errors import BenchError
from bench.lifecycle.load import Load, puts
from kvstore.testing.process_cluster import ProcessCluster

NODES = 3
CONNECTIONS = 16
SLOTS = 10_500
"""With so many slots behind them the replicas cut their logs: they hold as much log as they ever do."""
LOOK_S = 0.5
_FORMAT = 1
_APPLICATION_ID = 0x6B76_626B
_TABLES = """
CREATE TABLE records (key BLOB NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL,
    number INTEGER NOT NULL, create_revision INTEGER NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (revision, number)) STRICT;
CREATE TABLE backup (format INTEGER NOT NULL, cluster TEXT NOT NULL, node TEXT NOT NULL, kvstore TEXT NOT NULL,
    taken_at TEXT NOT NULL, records INTEGER NOT NULL, revision INTEGER NOT NULL, number INTEGER NOT NULL,
    applied INTEGER NOT NULL, chain TEXT NOT NULL, digest TEXT NOT NULL, checksum TEXT NOT NULL) STRICT;
"""
_encode = msgspec.msgpack.Encoder().encode

Row = tuple[int, int, bytes, bytes, int, int]


class _About(msgspec.Struct, frozen=True):
    """The row of the table `backup`, less its checksum."""

    format: int
    cluster: str
    node: str
    kvstore: str
    taken_at: str
    records: int
    revision: int
    number: int
    applied: int
    chain: str
    digest: str


def write_backup(file: Path, keys: int, value_bytes: int) -> None:
    """`k0`, `k1` and so on with random values, as if each had been put once."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_FORMAT};"
        )
        connection.executescript(_TABLES)
        digest = sum(_share(row) for row in _rows(keys, value_bytes)) % 2**64
        about = _About(_FORMAT, "none", "n1", "none", "never", keys, keys, 0, 1, bytes(16).hex(), f"{digest:016x}")
        total = hashlib.blake2b(_encode(about), digest_size=32)

        def summed() -> Iterator[Row]:
            for row in _rows(keys, value_bytes):
                total.update(_encode(row))
                yield row

        connection.executemany(
            "INSERT INTO records (revision, number, key, value, create_revision, version) VALUES (?, ?, ?, ?, ?, ?)",
            summed(),
        )
        row = (*msgspec.structs.astuple(about), total.hexdigest())
        connection.execute(f"INSERT INTO backup VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 - marks only
        connection.commit()


def _rows(keys: int, value_bytes: int) -> Iterator[Row]:
    rng = random.Random(keys)
    for number in range(keys):
        yield number + 1, 0, f"k{number}".encode(), rng.randbytes(value_bytes), number + 1, 1


def _share(row: Row) -> int:
    revision, number, key, value, create_revision, version = row
    return zlib.crc32(value, zlib.crc32(struct.pack("<QQQQ", revision, number, create_revision, version) + key))


async def restored(directory: Path, keys: int, value_bytes: int) -> ProcessCluster:
    """A cluster in `directory` that holds so many keys; not started. Raises BenchError."""
    file = directory.with_suffix(".backup")
    await asyncio.to_thread(write_backup, file, keys, value_bytes)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kvstore", "restore", str(file), "--nodes", str(NODES)),
        *("--data", str(directory), "--cluster", "bench"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    file.unlink()
    if process.returncode:
        raise BenchError(f"no cluster could be made: {output.decode(errors='replace')}")
    cluster = ProcessCluster(NODES, directory)
    cluster.prepare()
    await asyncio.to_thread(os.sync)  # what was written here must not stand before what is measured
    return cluster


async def fill_log(cluster: ProcessCluster, keys: int, value_bytes: int) -> None:
    """Overwrite keys until the log is as long as it gets. The cluster runs. Raises BenchError."""
    leader = await cluster.wait_ready()
    load = Load([cluster.replicas[leader].url], CONNECTIONS, puts(keys, value_bytes, rounds=1000))
    async with asyncio.TaskGroup() as group, cluster.status_client() as client:
        group.create_task(load.run())
        applied = 0
        while applied < SLOTS:
            await asyncio.sleep(LOOK_S)
            status = (await cluster.statuses(client))[leader]
            applied = status.applied if status is not None else applied
        load.stop()
