"""The client with real replicas: a repeated write is executed once, while replicas are killed."""

import asyncio

import pytest

from kvstore.client import Client, Locked
from kvstore.testing import AsyncLocalCluster, LocalCluster

pytestmark = pytest.mark.cluster

WRITERS = 32
KILLS = 2


class ClientWriters:
    """Tasks that put each key once: a key that was put twice has version 2."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopping = False
        self._wrote = asyncio.Event()
        self.versions: list[int] = []

    async def run(self) -> None:
        await asyncio.gather(*map(self._write, range(WRITERS)))

    async def more(self, count: int) -> None:
        goal = len(self.versions) + count
        while len(self.versions) < goal:
            self._wrote.clear()
            await self._wrote.wait()

    def stop(self) -> None:
        self._stopping = True

    async def _write(self, writer: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            self.versions.append((await self._client.put(f"{writer}/{number}", b"")).version)
            self._wrote.set()


def test_every_write_is_executed_once_while_leaders_are_killed() -> None:
    async def story() -> None:
        async with AsyncLocalCluster() as cluster:
            client = await cluster.client(timeout_ms=60_000)
            writers = ClientWriters(client)
            async with asyncio.TaskGroup() as group:
                group.create_task(writers.run())
                for _ in range(KILLS):
                    await writers.more(500)
                    leader = await cluster.wait_ready()
                    await cluster.kill(leader)
                    await writers.more(500)
                    await cluster.restart(leader)
                writers.stop()
            assert set(writers.versions) == {1}
            records = [found.record async for found in client.list(keys_only=True)]
            assert len(records) == len(writers.versions)
            assert all(record is not None and record.version == 1 for record in records)

    asyncio.run(story())


def test_a_lock_outlives_the_leader_and_a_lease_that_is_not_renewed_ends() -> None:
    with LocalCluster() as cluster:
        client = cluster.client(timeout_ms=30_000)
        with client.lock("deploy", ttl_s=30) as held:
            cluster.kill(cluster.leader())
            client.put("a", b"1", fence=held.fence)
            with pytest.raises(Locked), cluster.client(timeout_ms=30_000).lock("deploy", wait_s=0.1):
                raise AssertionError("held twice")
            assert not held.lost.is_set()
            cluster.restart()
        with client.lock("deploy", ttl_s=30, wait_s=30) as next_held:
            assert next_held.fence.token > held.fence.token
        client.put("up", b"", lease=client.lease(ttl_s=1))  # not renewed
        for change in client.watch(from_revision=1):
            if change.key == b"up" and change.record is None:
                break
        assert client.get("up") is None
