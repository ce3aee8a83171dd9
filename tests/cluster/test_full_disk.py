"""Disks that are full on all replicas: each data directory is a small file system of its own."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kvstore.testing.fork_server import ForkedCluster
from tests.cluster.harness import STORY_S, CallHistory, HttpClient, started, until

pytestmark = pytest.mark.cluster

DISK_BYTES = 24 << 20
RESERVE_BYTES = 4 << 20
VALUE = bytes(256 << 10)


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """Mount a file system in memory of DISK_BYTES on `directory`; skip the test where that is forbidden."""
    directory.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_full_disks_everywhere_leave_reads_and_deletions_and_writes_come_back(tmp_path: Path) -> None:
    cluster = ForkedCluster(3, tmp_path / "cluster", settings={"reserve_bytes": RESERVE_BYTES, "log_slots": 10})

    async def status(client: HttpClient, method: str, name: str, path: str, body: bytes | None = None) -> int:
        return (await client.ask(method, name, path, body)).status

    async def story() -> None:
        async with asyncio.timeout(STORY_S), HttpClient(cluster, CallHistory()) as client:
            await cluster.wait_ready()
            written = 0
            while await status(client, "PUT", "n1", f"/kv/k{written}", VALUE) != 507:
                written += 1
                assert written * len(VALUE) < 2 * DISK_BYTES
            for name in cluster.replicas:

                async def refuses(name: str = name) -> bool:
                    return await status(client, "PUT", name, "/kv/more", VALUE) == 507

                await until(refuses)
                assert await status(client, "GET", name, "/kv/k0") == 200
            assert all(map(cluster.runs, cluster.replicas))
            await cluster.stop()
            cluster.start()
            await cluster.wait_ready()
            for number in range(written):

                async def deletes(number: int = number) -> bool:
                    return await status(client, "DELETE", "n2", f"/kv/k{number}") in {200, 404}

                await until(deletes)
            for name in cluster.replicas:

                async def takes(name: str = name) -> bool:
                    await client.ask("DELETE", "n1", "/kv/absent")  # compaction goes along with writes
                    return await status(client, "PUT", name, "/kv/again", b"v") in {200, 201}

                await until(takes)

    with ExitStack() as disks:
        for replica in cluster.replicas.values():
            disks.enter_context(small_disk(replica.data))
        cluster.prepare()
        with started(cluster):
            asyncio.run(story())
