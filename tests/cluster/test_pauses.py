"""A leader that was stopped for longer than its lease, and what it says when it continues."""

import asyncio
import time
from pathlib import Path

import pytest

from kvstore.supervisor import LocalCluster
from tests.cluster.harness import Client, Ending, History, load, others, running, target
from tests.linearizability import Operation

pytestmark = pytest.mark.cluster

PAUSES = 4


class QueuedRead:
    """A read that has left: it waits in the socket of a replica that does not run."""

    def __init__(self, key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._key = key
        self._reader = reader
        self._writer = writer
        self._called = time.monotonic_ns()

    @classmethod
    async def send(cls, cluster: LocalCluster, name: str, key: bytes) -> "QueuedRead":
        read = cls(key, *await asyncio.open_connection(*cluster.places[name].listen))
        read._writer.write(f"GET {target(key)} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        await read._writer.drain()
        return read

    async def answered(self) -> Operation:
        head, _, body = (await self._reader.read()).partition(b"\r\n\r\n")
        returned = time.monotonic_ns()
        self._writer.close()
        status = int(head.split()[1])
        assert status in {200, 404}, head
        return Operation("get", self._key, body if status == 200 else None, self._called, returned)


async def pause_leader_past_its_lease(cluster: LocalCluster, history: History) -> None:
    old = await cluster.wait_ready()
    rest = others(cluster, old)
    cluster.pause(old)
    new = await cluster.wait_ready(rest)
    assert new in rest
    async with load(cluster, history, rest) as running_load, Client(cluster, history) as client:
        await running_load.more(100)
        queued = [await QueuedRead.send(cluster, old, key) for key in history.keys * 3]
        cluster.resume(old)
        history.operations += await asyncio.gather(*(read.answered() for read in queued))
        for key in history.keys * 3:
            call = await client.get(old, key)
            assert call.ending is Ending.DONE, call.why
        await running_load.more(100)
    assert running_load.given_up == []


def test_a_leader_paused_past_its_lease_serves_no_stale_read_when_it_continues(tmp_path: Path) -> None:
    async def story() -> None:
        history = History()
        async with running(tmp_path) as cluster, Client(cluster, history) as client:
            for key in history.keys:
                assert (await client.put("n1", key)).ending is Ending.DONE  # what a stale read would see
            for _ in range(PAUSES):
                await pause_leader_past_its_lease(cluster, history)
            await history.verify(cluster, least=200)

    asyncio.run(story())
