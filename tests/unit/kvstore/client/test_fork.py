"""A client in a forked process: each call raises at once and says what to do, and the exit harms nobody."""

import subprocess
import sys

SYNC = """
import os, sys
from kvstore.client import SyncClient

with SyncClient(["http://127.0.0.1:9"], timeout_ms=300_000) as client:
    before = client.list()
    child = os.fork()
    if not child:
        for call in (
            lambda: client.get("a"), lambda: client.put("a", b""), lambda: client.delete("a"), lambda: next(before),
            lambda: next(client.watch()), lambda: client.lease(), lambda: client.lock("l").__enter__(),
        ):
            try:
                call()
            except RuntimeError as error:
                print(error, flush=True)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
ASYNC = """
import asyncio, os, sys
from kvstore.api.commands import Transact
from kvstore.client import Client

async def story():
    async with Client(["http://127.0.0.1:9"], timeout_ms=300_000) as client:
        writes = [asyncio.create_task(client.put(str(number), b"")) for number in range(9)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            for call in (
                client.get("a"), client.put("a", b""), client.delete("a"), client.txn(Transact([], [], [])),
                client.leases(), anext(client.watch()), client.lock("l").__aenter__(),
                client.__aexit__(None, None, None),
            ):
                try:
                    call.send(None)
                except (RuntimeError, StopIteration) as error:
                    print(error, flush=True)
            os._exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        for write in writes:
            write.cancel()

asyncio.run(story())
"""


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_each_call_of_a_blocking_client_raises() -> None:
    *errors, status = run(SYNC)
    assert len(errors) == 7
    assert all(error.startswith("SyncClient was opened in process ") for error in errors)
    assert all("gunicorn" in error and "multiprocessing" in error for error in errors)
    assert status == "3"


def test_each_call_of_an_asyncio_client_raises_though_writes_were_in_flight() -> None:
    *errors, end, status = run(ASYNC)
    assert len(errors) == 7
    assert all(error.startswith("Client was opened in process ") for error in errors)
    assert (end, status) == ("", "3")


RESOLVED = """
import os, sys
from kvstore.client import NotDone, SyncClient

with SyncClient(["http://127.0.0.1:9"], timeout_ms=1) as client:
    try:
        client.get("a")
    except NotDone:
        pass
    child = os.fork()
    if not child:
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_ends_with_its_own_exit_status() -> None:
    """The client has resolved an address. libuv joins its threads for that when a process exits, and crashed."""
    assert run(RESOLVED) == ["3"]
