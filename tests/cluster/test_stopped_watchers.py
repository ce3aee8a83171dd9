"""Watchers that stop reading cost a bounded amount of memory."""

import asyncio
import socket
from pathlib import Path

import pytest

from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import STEADY, CallHistory, HttpClient, running

pytestmark = pytest.mark.cluster

WATCHERS = 200
WRITERS = 16
ROUNDS = 2
VALUE = b"x" * 1_000_000
GROWTH_MB = 250.0
"""Limit of the memory for the watchers. Each has a write buffer of 64 KiB and a frame of 32 KiB, and all share a cache
of 16 MiB. A copy of the events of one round for each took 700 MB."""


def largest_mb(cluster: ProcessCluster, name: str) -> float:
    """Return the largest resident memory of a replica so far."""
    status = Path(f"/proc/{cluster.process_id(name)}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_the_memory_for_watchers_that_do_not_read_is_bounded(tmp_path: Path) -> None:
    """The same writes take about the same memory with and without them."""

    async def write(client: HttpClient) -> None:
        for _ in range(ROUNDS):
            await asyncio.gather(*(client.put("n1", b"k%d" % number, VALUE) for number in range(WRITERS)))

    async def story() -> None:
        async with running(tmp_path, **STEADY) as cluster, HttpClient(cluster, CallHistory()) as client:
            await write(client)
            alone_mb = largest_mb(cluster, "n1")
            watchers = [socket.create_connection(cluster.replicas["n1"].listen) for _ in range(WATCHERS)]
            try:
                for watcher in watchers:
                    watcher.sendall(b"GET /watch?prefix= HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    await asyncio.to_thread(watcher.recv, 10)  # the watch has begun
                await write(client)
                assert largest_mb(cluster, "n1") - alone_mb < GROWTH_MB
            finally:
                for watcher in watchers:
                    watcher.close()

    asyncio.run(story())
