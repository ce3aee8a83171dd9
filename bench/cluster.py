"""The measured cluster, which a command starts or finds running, and operations on its replicas."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from bench.command import scratch_directory
from bench.errors import BenchError
from bench.load.generator import fill
from bench.load.options import Mix
from bench.processes import usage
from kvstore.api.status import Status
from kvstore.client import Client, ClientError
from kvstore.testing.cluster_directory import LocalReplica
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import leader_of

DATABASE = "kvstore.db"
LOG = "kvstore.db-wal"
READY_S = 300.0
"""Timeout for the start of a replica with much data."""
DISCONNECT_S = 10.0
"""Time for the other replicas to notice that a replica has ended."""

At = Literal["leader", "follower", "all"]


class ClusterTarget(msgspec.Struct, frozen=True):
    """The endpoints of a cluster and of its leader."""

    urls: list[str]
    leader: str

    def at(self, which: At) -> list[str]:
        """Return the endpoints to which a load connects. Raises BenchError."""
        if which == "all":
            return self.urls
        if which == "leader":
            return [self.leader]
        follower = next((url for url in self.urls if url != self.leader), None)
        if follower is None:
            raise BenchError("--at follower needs the endpoint of a follower: name all replicas in --endpoints")
        return [follower]


@asynccontextmanager
async def started(directory: Path, nodes: int = 3) -> AsyncIterator[ProcessCluster]:
    """Yield a new, ready cluster with default settings, and stop it at the end. Raises ClusterError."""
    cluster = ProcessCluster(nodes, directory)
    cluster.prepare()
    try:
        cluster.start()
        await cluster.wait_ready()
        yield cluster
    finally:
        await cluster.stop()


async def target_of(cluster: ProcessCluster) -> ClusterTarget:
    """Return the endpoints of a cluster that this process started."""
    return ClusterTarget(cluster.endpoints, cluster.replicas[await cluster.wait_ready()].url)


@asynccontextmanager
async def target(endpoints: str | None, nodes: int) -> AsyncIterator[ClusterTarget]:
    """Yield the cluster at these comma-separated endpoints, or a new one. Raises BenchError or ClusterError."""
    if endpoints:
        yield await _running([endpoint.rstrip("/") for endpoint in endpoints.split(",")])
        return
    with scratch_directory() as directory:
        async with started(directory / "cluster", nodes) as cluster:
            yield await target_of(cluster)


async def _running(urls: list[str]) -> ClusterTarget:
    async def ask(client: Client, url: str) -> Status | None:
        try:
            return await client.status(url)
        except ClientError:
            return None

    async with Client(urls) as client:
        statuses = dict(zip(urls, await asyncio.gather(*(ask(client, url) for url in urls)), strict=True))
    leader = leader_of(statuses)
    for url, status in statuses.items():
        if status is not None and status.id == leader:
            return ClusterTarget(urls, url)
    raise BenchError(f"no leader among --endpoints {','.join(urls)}: name all replicas, and check that they run")


async def fill_keys(cluster: ProcessCluster, keys: int, value_bytes: int, prefix: str = "k") -> None:
    """Put `keys` keys, named by `prefix` and a number. Raises BenchError."""
    leader = cluster.replicas[await cluster.wait_ready()].url
    try:
        await fill(leader, Mix(keys=keys, value_bytes=value_bytes, prefix=prefix))
    except OSError as error:
        raise BenchError(f"{keys:,} keys could not be written: {error}; see {cluster.directory}/*.log") from error


async def kill_leader(cluster: ProcessCluster) -> None:
    """End the leader with SIGKILL, wait for another one, start the replica again and wait until it is ready."""
    leader = await cluster.wait_ready()
    cluster.kill(leader)
    await cluster.wait_ready([name for name in cluster.replicas if name != leader])
    cluster.start([leader])
    await cluster.wait_ready()


async def replace_disk(cluster: ProcessCluster, name: str, timeout_s: float = DISCONNECT_S) -> None:
    """Remove the data of a stopped replica and replace the member. When the replica is started again, it receives a
    snapshot. Raises BenchError when the cluster does not accept the replacement within `timeout_s`."""
    replica = cluster.replicas[name]
    shutil.rmtree(replica.data)
    deadline = time.monotonic() + timeout_s
    async with Client([other.url for other in cluster.replicas.values() if other is not replica]) as client:
        while True:
            try:
                await client.replace_member(name)
                break
            except ClientError as error:  # refused while the others count the member as connected
                if time.monotonic() > deadline:
                    raise BenchError(f"member {name} could not be replaced: {error}") from error
                await asyncio.sleep(POLL_S)
    cluster.mark_joining(name)


def resident_mb(cluster: ProcessCluster, names: Iterable[str] | None = None) -> dict[str, float]:
    """Return the resident memory of each running replica, in MB."""
    chosen = [name for name in names or cluster.replicas if cluster.runs(name)]
    return {name: usage([cluster.process_id(name)]).resident_bytes / 1e6 for name in chosen}


def file_mb(replica: LocalReplica) -> float:
    """Return the size of a replica's database and write-ahead log together, in MB."""
    files = (replica.data / DATABASE, replica.data / LOG)
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6


@asynccontextmanager
async def repeated(action: Callable[[], None], interval_s: float) -> AsyncIterator[None]:
    """Call `action` every `interval_s` seconds during the block."""

    async def repeat() -> None:
        while True:
            action()
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
