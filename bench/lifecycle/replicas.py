"""Things done to single replicas of a local cluster."""

import asyncio
import shutil
import time
from collections.abc import Iterable

import msgspec

from bench.errors import BenchError
from bench.processes import usage
from kvstore.client import Client, ClientError
from kvstore.testing.cluster_directory import LocalReplica
from kvstore.testing.process_cluster import POLL_S, ProcessCluster

DATABASE = "kvstore.db"
LOG = "kvstore.db-wal"
UNNOTICED_S = 10.0
"""Its peers notice within this time that a replica is gone."""


def resident_mb(cluster: ProcessCluster, names: Iterable[str] | None = None) -> dict[str, float]:
    """Resident memory of each replica that runs, in MB."""
    chosen = [name for name in names or cluster.replicas if cluster.runs(name)]
    return {name: usage([cluster.process_id(name)]).resident_bytes / 1e6 for name in chosen}


def file_mb(place: LocalReplica) -> tuple[float, float]:
    """Sizes of the database and of its write-ahead log, in MB."""
    files = (place.data / DATABASE, place.data / LOG)
    database, log = (file.stat().st_size / 1e6 if file.exists() else 0.0 for file in files)
    return database, log


class Start(msgspec.Struct, frozen=True):
    """Seconds from the start of replicas until all of them are ready, and the CPU seconds that each used until then:
    on a machine that is shared, those tell more."""

    seconds: float
    cpu_s: float


async def restart(cluster: ProcessCluster, names: list[str], timeout_s: float) -> Start:
    """Start these replicas, which have ended. Raises ClusterError."""
    began = time.monotonic()
    cluster.start(names)
    await cluster.wait_ready(names, timeout_s=timeout_s)
    cpu_s = usage(map(cluster.process_id, names)).cpu_s / len(names)
    return Start(time.monotonic() - began, cpu_s)


async def kill_leader(cluster: ProcessCluster) -> None:
    """End the leader with SIGKILL, wait for another one, and start it again: it is back on return."""
    leader = await cluster.wait_ready()
    cluster.kill(leader)
    await cluster.wait_ready([name for name in cluster.replicas if name != leader])
    cluster.start([leader])
    await cluster.wait_ready()


async def wipe(cluster: ProcessCluster, name: str, patience_s: float = UNNOTICED_S) -> None:
    """Take the data of a replica, which has ended, away, and have it be a member again with a new disk. It does not run
    on return; once started it is given the state. Raises BenchError when its peers do not want that in time."""
    place = cluster.replicas[name]
    shutil.rmtree(place.data)
    deadline = time.monotonic() + patience_s
    async with Client([other.url for other in cluster.replicas.values() if other is not place]) as client:
        while True:
            try:
                await client.replace_member(name)
                break
            except ClientError as error:  # Rejected while its peers believe it to be connected
                if time.monotonic() > deadline:
                    raise BenchError(f"{name} cannot be replaced: {error}") from error
                await asyncio.sleep(POLL_S)
    cluster.mark_joining(name)
