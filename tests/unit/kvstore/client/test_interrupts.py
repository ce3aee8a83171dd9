"""A program that ends while its client waits for a lock: the client leaves the queue before it is closed."""

import asyncio
import signal
import sys

import pytest

from kvstore.api.commands import AcquireLock, GrantLease
from tests.unit.kvstore.server.http.fake import Store, run

WAITER = """
import signal, sys
from kvstore.client import SyncClient

signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
with SyncClient([sys.argv[1]], exactly_once=False) as client, client.lock("deploy", ttl_s=3600):
    print("held")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_ends_by_a_signal_leaves_the_queue(number: signal.Signals) -> None:
    """The replica in memory ends no lease by itself."""

    async def story(store: Store) -> None:
        for command in (GrantLease(60_000), AcquireLock(b"deploy", 1, 0, b"", queue=False)):
            store.replica.write(command, lambda _: None)
        address = f"http://127.0.0.1:{store.port}"
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", WAITER, address)
        while len(store.replica.lease_index.locks[b"deploy"]) < 2:
            await store.replica.done.get()
        program.send_signal(number)
        assert await program.wait() == 3
        assert list(store.replica.lease_index.leases) == [1]

    run(story, loops=asyncio.new_event_loop)
