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
    """Run `script` and return its lines. It writes no error; Python's own warning of a fork beside threads is off."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
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


CONNECTED = r"""
import os, socket, sys, threading
from kvstore.client import SyncClient

ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: "1"\r\nKV-Revision: 1\r\nKV-Create-Revision: 1\r\n'
    b'KV-Version: 1\r\n\r\nx'
)

def serve(connection):
    while connection.recv(65536):
        connection.sendall(ANSWER)

def accept():
    while True:
        connections.append(listener.accept()[0])
        threading.Thread(target=serve, args=(connections[-1],), daemon=True).start()

listener, connections = socket.create_server(("127.0.0.1", 0)), []
threading.Thread(target=accept, daemon=True).start()
with SyncClient([f"http://127.0.0.1:{listener.getsockname()[1]}"]) as client:
    client.get("a")
    child = os.fork()
    if not child:
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(client.get("a").value, len(connections))
"""


def test_a_forked_process_ends_without_a_message_and_leaves_the_connections_of_its_parent_alone() -> None:
    assert run(CONNECTED) == ["3", "b'x' 1"]
