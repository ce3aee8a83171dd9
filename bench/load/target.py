"""Where a load goes: a cluster that is started for it, or one that is there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from bench.errors import BenchError
from kvstore.api.status import Status
from kvstore.client import Client, ClientError
from kvstore.testing.process_cluster import ProcessCluster
from kvstore.testing.replica_status import leader_of

At = Literal["leader", "follower", "all"]


class Target(msgspec.Struct, frozen=True):
    """The replicas of a cluster, and which of them leads."""

    urls: list[str]
    leader: str

    def at(self, which: At) -> list[str]:
        """Where connections go: to the leader, to one follower, or to all in turn. Raises BenchError."""
        if which == "all":
            return self.urls
        if which == "leader":
            return [self.leader]
        follower = next((url for url in self.urls if url != self.leader), None)
        if follower is None:
            raise BenchError("no follower is among the endpoints: name all of them")
        return [follower]


@asynccontextmanager
async def started(directory: Path, nodes: int) -> AsyncIterator[Target]:
    """A new cluster with default settings, for the time of the block. Raises ClusterError."""
    cluster = ProcessCluster(nodes, directory)
    cluster.prepare()
    try:
        cluster.start()
        leader = await cluster.wait_ready()
        yield Target(cluster.endpoints, cluster.replicas[leader].url)
    finally:
        await cluster.stop()


async def found(endpoints: Sequence[str]) -> Target:
    """A cluster that runs. Raises BenchError when nobody at `endpoints` leads."""
    urls = [endpoint.rstrip("/") for endpoint in endpoints]

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
            return Target(urls, url)
    raise BenchError("none of the endpoints leads: name all replicas, and see that they run")
