"""Commands that run until Ctrl-C, while no replica answers for some time."""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from kvstore.api.commands import Put
from kvstore.client import Client, ClientError, NoSuchLease, Unavailable, UnknownOutcome
from kvstore.client.caller import Request
from kvstore.client.errors import Response
from kvstore.server.http.server import Frontend
from kvstore.server.metrics import Metrics
from tests.unit.kvstore.cli.command_line import kvstore_process
from tests.unit.kvstore.cli.command_line import run as run_command
from tests.unit.kvstore.server.http.fake import Store, run


def at(story: Callable[[Store], Awaitable[None]]) -> None:
    async def scenario(store: Store) -> None:
        try:
            await story(store)
        finally:
            await store.frontend.stop(0)

    run(scenario, loops=asyncio.new_event_loop)


@asynccontextmanager
async def kvstore(store: Store, *arguments: str) -> AsyncIterator[Process]:
    address = f"http://127.0.0.1:{store.port}"
    environment = {"KVSTORE_ENDPOINTS": address}
    async with kvstore_process("-m", "kvstore", *arguments, environment=environment) as process:
        yield process


async def down(store: Store) -> None:
    await store.frontend.stop(0)


async def up(store: Store) -> None:
    """Serve the same replica at the same address again."""
    store.frontend = Frontend(store.replica, Metrics(), None)
    await store.frontend.start("127.0.0.1", store.port)


async def said(process: Process) -> str:
    """The next message to the user."""
    assert process.stderr is not None
    return (await process.stderr.readline()).decode()


async def change(process: Process) -> str:
    assert process.stdout is not None
    key: str = json.loads(await process.stdout.readline())["key"]
    return key


def test_a_watch_continues_after_an_outage_where_it_was() -> None:
    async def story(store: Store) -> None:
        store.replica.write(Put(b"a", b""), lambda _: None)
        async with kvstore(store, "watch", "--json", "--from-revision", "1") as watch:
            assert await change(watch) == "a"
            for key in ("b", "c"):
                await down(store)
                assert (await said(watch)).startswith("kvstore: no replica answers, trying again: ")
                store.replica.write(Put(key.encode(), b""), lambda _: None)
                await up(store)
                assert (await said(watch)).startswith("kvstore: a replica answers again after ")
                assert await change(watch) == key
            watch.send_signal(signal.SIGINT)
            assert await watch.communicate() == (b"", b"")
            assert watch.returncode == 0

    at(story)


def test_a_watch_that_begins_in_an_outage_waits_for_its_end() -> None:
    async def story(store: Store) -> None:
        await down(store)
        async with kvstore(store, "watch", "--json", "--from-revision", "1") as watch:
            assert "no replica answers" in await said(watch)
            store.replica.write(Put(b"a", b""), lambda _: None)
            await up(store)
            assert await change(watch) == "a"

    at(story)


def test_a_lease_is_renewed_again_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = Response(200, CIMultiDictProxy(CIMultiDict()), b'{"id": 1, "ttl_s": 0.1}')
    outage = [Unavailable("cannot connect"), UnknownOutcome("no answer")]
    answers: list[Response | ClientError] = [renewed, *outage, renewed, *outage, renewed, NoSuchLease("it has ended")]

    async def ask(_: Client, __: Request) -> Response:
        answer = answers.pop(0)
        if isinstance(answer, ClientError):
            raise answer
        return answer

    monkeypatch.setattr(Client, "ask", ask)
    code, _, err = run_command("lease", "keepalive", "1", "--every")
    assert (code, answers) == (1, [])
    assert [line.split(" ", 4)[:4] for line in err.splitlines()] == [
        ["kvstore:", "no", "replica", "answers,"],
        ["kvstore:", "a", "replica", "answers"],
        ["kvstore:", "no", "replica", "answers,"],
        ["kvstore:", "a", "replica", "answers"],
        ["kvstore:", "lease", "1", "does"],
    ]
