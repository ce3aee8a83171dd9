"""Locks of processes that are stopped or killed.

A holder that is stopped for longer than its lease has lost the lock: its writes are refused. A request in the queue
whose replica or client is killed does not get the lock for its whole TTL.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import aiohttp
import msgspec
import pytest

from kvstore.api.json.documents import LockDocument
from kvstore.client import Client
from kvstore.client.caller import Request
from tests.cluster.harness import others, running, until

pytestmark = pytest.mark.cluster

TTL_S = 2.0
HOLDER = """
import sys
from kvstore.client import LockLost, SyncClient

with SyncClient(sys.argv[1].split(",")) as client, client.lock("deploy", ttl_s=float(sys.argv[2])) as held:
    client.put("guarded", b"old", fence=held.fence)
    print(held.fence.token, flush=True)
    sys.stdin.readline()
    try:
        client.put("guarded", b"late", fence=held.fence)
        print("done", flush=True)
    except LockLost as error:
        print("refused", error.fence, flush=True)
"""


@asynccontextmanager
async def holder(endpoints: list[str], ttl_s: float) -> AsyncIterator[tuple[Process, int]]:
    """A process that holds the lock and has written, with its fence. It writes again when it is told a line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, ",".join(endpoints), str(ttl_s)), stdin=PIPE, stdout=PIPE
    )
    try:
        yield process, int(await said(process))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "the holder ended without a word: its error is above"
    return line


def test_a_holder_that_slept_past_its_lease_is_fenced_off(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            running(tmp_path) as cluster,
            Client(cluster.endpoints) as client,
            holder(cluster.endpoints, TTL_S) as (process, old),
        ):
            found = await client.holder("deploy")
            assert found is not None
            assert found.fence.token == old
            process.send_signal(SIGSTOP)
            async with client.lock("deploy", ttl_s=60) as held:
                assert held.fence.token > old
                await client.put("guarded", b"new", fence=held.fence)
                process.send_signal(SIGCONT)
                assert process.stdin is not None
                process.stdin.write(b"write\n")
                assert await said(process) == b"refused %d\n" % held.fence.token
                record = await client.get("guarded")
                assert record is not None
                assert (record.value, record.version) == (b"new", 2)
            assert await process.wait() == 0

    asyncio.run(story())


def test_a_holder_that_sleeps_for_less_than_its_lease_keeps_the_lock(tmp_path: Path) -> None:
    """What the test above sees is no matter of being stopped."""

    async def story() -> None:
        async with (
            running(tmp_path) as cluster,
            Client(cluster.endpoints) as client,
            holder(cluster.endpoints, 60 * TTL_S) as (process, _),
        ):
            process.send_signal(SIGSTOP)
            process.send_signal(SIGCONT)
            assert process.stdin is not None
            process.stdin.write(b"write\n")
            assert await said(process) == b"done\n"
            record = await client.get("guarded")
            assert record is not None
            assert record.value == b"late"

    asyncio.run(story())


WAITER = """
import sys
from kvstore.client import SyncClient

with SyncClient(sys.argv[1].split(",")) as client, client.lock("deploy", ttl_s=3600):
    print("held", flush=True)
"""


async def waiting(client: Client, *, count: int) -> None:
    """Wait until `count` leases wait for the lock."""

    async def is_so() -> bool:
        lock = await client.ask(Request("GET", "/locks/deploy"))
        return len(msgspec.json.decode(lock.body, type=LockDocument).waiting) == count

    await until(is_so)


def test_a_lock_does_not_go_for_its_whole_ttl_to_a_request_whose_replica_was_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            running(tmp_path) as cluster,
            Client(cluster.endpoints) as client,
            aiohttp.ClientSession() as session,
        ):
            async with client.lock("deploy"):
                asked = others(cluster, await cluster.wait_ready())[0]
                url = f"{cluster.replicas[asked].url}/locks/deploy"
                request = asyncio.create_task(session.post(url, json={"ttl_s": 3600, "wait_s": 60}))
                await waiting(client, count=1)
                cluster.kill(asked)
                with pytest.raises(aiohttp.ClientError):
                    await request
            async with client.lock("deploy"):  # the timeout of the test is shorter than the TTL
                pass

    asyncio.run(story())


def test_a_lock_does_not_go_for_its_whole_ttl_to_a_client_that_was_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as cluster, Client(cluster.endpoints) as client:
            async with client.lock("deploy"):
                waiter = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", WAITER, ",".join(cluster.endpoints), stdout=PIPE
                )
                await waiting(client, count=1)
                waiter.kill()
                await waiter.wait()
            async with client.lock("deploy"):
                pass

    asyncio.run(story())
