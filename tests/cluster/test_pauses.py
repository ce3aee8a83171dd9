"""A leader that was stopped for longer than its lease, and what it says when it continues."""

import asyncio
import time
from pathlib import Path

import pytest

from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import CallHistory, Ending, HttpClient, load, others, running, target
from tests.torture.linearizability import Operation

pytestmark = pytest.mark.cluster

PAUSES = 2
BIG = bytes(1 << 20)


class QueuedRead:
    """A read that waits in the socket of a replica that does not run. The connection was made while it ran."""

    def __init__(self, key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._key = key
        self._reader = reader
        self._writer = writer
        self._called = 0

    @classmethod
    async def connect(cls, cluster: ProcessCluster, name: str, key: bytes) -> "QueuedRead":
        read = cls(key, *await asyncio.open_connection(*cluster.replicas[name].listen))
        read._writer.write(b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read._reader.readuntil(b"\r\n\r\n")
        return read

    async def send(self) -> None:
        self._called = time.monotonic_ns()
        self._writer.write(f"GET {target(self._key)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        await self._writer.drain()

    async def answered(self) -> Operation:
        head, _, body = (await self._reader.read()).partition(b"\r\n\r\n")
        returned = time.monotonic_ns()
        self._writer.close()
        status = int(head.split()[1])
        assert status in {200, 404}, head
        return Operation("get", self._key, body if status == 200 else None, self._called, returned)


async def pause_leader_past_its_lease(cluster: ProcessCluster, history: CallHistory) -> None:
    """Large writes on their way to the leader hold up the news of its successor: when it continues, the reads that wait
    for it come first."""
    old = await cluster.wait_ready()
    rest = others(cluster, old)
    queued = [await QueuedRead.connect(cluster, old, key) for key in history.keys * 3]
    cluster.pause(old)
    async with HttpClient(cluster, history) as client:
        big = [asyncio.create_task(client.put(name, b"big", BIG)) for name in rest * 4]
        assert await cluster.wait_ready(rest) in rest
        await asyncio.gather(*big)
    async with load(cluster, history, rest) as running_load, HttpClient(cluster, history) as client:
        await running_load.more(100)
        for read in queued:
            await read.send()
        cluster.resume(old)
        history.operations += await asyncio.gather(*(read.answered() for read in queued))
        for key in history.keys * 3:
            call = await client.get(old, key)
            assert call.ending is Ending.DONE, call.why
        await running_load.more(100)
    assert running_load.given_up == []


def test_a_leader_paused_past_its_lease_serves_no_stale_read_when_it_continues(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        # With a long stall_ms nothing but the lease tells it, or else it would step down first, for having stood still.
        async with running(tmp_path, stall_ms=60_000) as cluster, HttpClient(cluster, history) as client:
            for key in history.keys:
                assert (await client.put("n1", key)).ending is Ending.DONE  # what a stale read would see
            for _ in range(PAUSES):
                await pause_leader_past_its_lease(cluster, history)
            await history.verify(cluster, least=200)

    asyncio.run(story())
