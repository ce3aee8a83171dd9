"""Server-sent events: every change, in order, once."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from kvstore.api.commands import DeleteSpan, Put, Transact
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.server.http import event_pages, feed
from kvstore.server.http.limits import UNSENT_BYTES
from kvstore.state_machine.history import History
from storage.base import first_of
from tests.unit.kvstore.server.http.fake import Store, request, run

Block = dict[str, str]


class Stream:
    """What a client of a watch reads: blocks of fields, comments left out."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> Block:
        fields: Block = {}
        while line := (await self.response.content.readline()).decode():
            if line == "\n" and fields:
                return fields
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
        return fields

    async def event(self) -> tuple[str, Any, int | None]:
        """The next event: its kind, its data, and the id if it has one."""
        fields = await self.block()
        while "data" not in fields:
            assert fields, "the stream has ended"
            fields = await self.block()
        return fields["event"], json.loads(fields["data"]), int(fields["id"]) if "id" in fields else None

    async def keys(self, count: int) -> list[str]:
        return [(await self.event())[1]["key"] for _ in range(count)]


@asynccontextmanager
async def watching(store: Store, query: str = "prefix=", **headers: str) -> AsyncIterator[Stream]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(store.url(f"/watch?{query}"), headers=named) as response:
        assert response.status == 200, await response.read()
        assert response.headers["content-type"] == "text/event-stream"
        stream = Stream(response)
        assert (await stream.block())["retry"] == "1000"
        yield stream


async def put(store: Store, *keys: str) -> None:
    for key in keys:
        await store.call("PUT", f"/kv/{key}", b"v")


def test_changes_come_as_they_happen_with_what_is_there_then() -> None:
    async def scenario(store: Store) -> None:
        await put(store, "before")
        async with watching(store) as stream:
            await store.call("PUT", "/kv/a", b"\xff")
            document = {"key": "a", "value_base64": "/w==", "revision": 2, "create_revision": 2, "version": 1}
            assert await stream.event() == ("put", document, 2)
            await store.call("DELETE", "/kv/a")
            assert await stream.event() == ("delete", {"key": "a", "revision": 3}, 3)

    run(scenario)


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("key=b", ["b"]),
        ("prefix=b", ["b", "b/1"]),
        ("start=b/&end=c", ["b/1"]),
        ("start=b/", ["b/1", "c"]),
        ("prefix=", ["a", "b", "b/1", "c"]),
    ],
)
def test_only_what_is_watched_comes(query: str, seen: list[str]) -> None:
    async def scenario(store: Store) -> None:
        async with watching(store, query + "&from_revision=1") as stream:
            await put(store, "a", "b", "b/1", "c")
            assert await stream.keys(len(seen)) == seen

    run(scenario)


def test_a_watch_begins_in_the_past_and_goes_on_into_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pages, "MAX_SCANNED", 2)

    async def scenario(store: Store) -> None:
        await put(store, *"abcdefg")
        async with watching(store, "prefix=&from_revision=3") as stream:
            assert await stream.keys(5) == list("cdefg")
            await put(store, "h")
            assert await stream.keys(1) == ["h"]

    run(scenario)


def test_only_the_last_event_of_a_revision_has_its_number_as_id() -> None:
    """Whoever is cut off in the midst of a revision gets all of it again."""

    async def scenario(store: Store) -> None:
        async with watching(store) as stream:
            store.replica.write(Transact([], [Put(b"a", b""), Put(b"b", b"")], []), lambda _: None)
            store.replica.write(DeleteSpan(EVERY_KEY), lambda _: None)
            events = [await stream.event() for _ in range(4)]
            assert [(kind, data["key"], last) for kind, data, last in events] == [
                ("put", "a", None),
                ("put", "b", 1),
                ("delete", "a", None),
                ("delete", "b", 2),
            ]
        async with watching(store, Last_Event_ID="1") as stream:
            assert [(await stream.event())[1]["revision"] for _ in range(2)] == [2, 2]
        async with watching(store, "key=a&from_revision=1", Last_Event_ID="0") as stream:
            assert [(await stream.event())[2] for _ in range(2)] == [1, 2]

    run(scenario)


def test_several_who_watch_the_same_get_the_same() -> None:
    async def scenario(store: Store) -> None:
        await put(store, "a")
        async with watching(store, "prefix=&from_revision=1") as one:
            assert await one.keys(1) == ["a"]
            await put(store, "b")
            async with watching(store, "prefix=&from_revision=1") as other, watching(store) as late:
                await put(store, "c")
                assert await one.keys(2) == ["b", "c"]
                assert await other.keys(3) == ["a", "b", "c"]
                assert await late.keys(1) == ["c"]
            await put(store, "d")
            assert await one.keys(1) == ["d"]

    run(scenario)


def test_what_is_compacted_is_said_before_and_during_a_watch() -> None:
    async def scenario(store: Store) -> None:
        await put(store, *"abcd")
        machine = store.replica.machine
        machine.forget(first_of(2))
        gone = await store.call("GET", "/watch?prefix=&from_revision=2")
        assert (gone.status, gone.headers["kv-oldest-revision"]) == (410, "3")
        assert "List the keys" in gone.problem()["detail"]
        async with watching(store, "prefix=&from_revision=3") as stream:
            assert await stream.keys(2) == ["c", "d"]
            store.replica.machine.history = History()  # the state was replaced by a later one
            machine.forget(first_of(9))
            machine.position = first_of(9)
            store.replica.hear()
            kind, data, last = await stream.event()
            assert (kind, data["oldest_revision"], last) == ("lost", 10, None)
            assert await stream.block() == {}

    run(scenario)


def test_a_reader_that_is_slow_for_a_while_misses_nothing() -> None:
    async def scenario(store: Store) -> None:
        async with watching(store) as stream:
            value = b"x" * 500_000
            for number in range(40):
                await store.call("PUT", f"/kv/{number}", value)
            assert await stream.keys(40) == [str(number) for number in range(40)]
            await put(store, "a")
            assert await stream.keys(1) == ["a"]

    run(scenario)


def test_a_reader_that_never_reads_is_behind_what_is_forgotten_and_told_so() -> None:
    async def scenario(store: Store) -> None:
        async with watching(store) as stream:
            value = b"x" * 500_000
            for number in range(60):
                await store.call("PUT", f"/kv/{number}", value)
            store.replica.machine.forget(store.replica.machine.position)
            revision = 0
            while True:
                kind, data, _ = await stream.event()
                if kind == "lost":
                    break
                revision += 1
                assert data["revision"] == revision
            assert 0 < revision < 60
            assert data["oldest_revision"] == 61

    run(scenario)


def test_the_kernel_holds_little_for_a_reader_that_never_reads() -> None:
    """Beyond that, the events wait in the history, which all readers share."""

    async def scenario(store: Store) -> None:
        async with watching(store):
            connection = next(each for each in store.frontend._connections if each._writer._streaming is not None)
            assert connection._transport is not None
            sending = connection._transport.get_extra_info("socket")
            assert sending.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES

    run(scenario)


def test_an_idle_watch_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PROGRESS_S", 0.01)

    async def scenario(store: Store) -> None:
        async with watching(store, "key=quiet") as stream:
            await put(store, "a", "b")
            fields = await stream.block()
            while fields != {"id": "2"}:
                assert fields.keys() == {"id"}
                fields = await stream.block()

    run(scenario)


def test_who_leaves_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PROGRESS_S", 0.01)

    async def scenario(store: Store) -> None:
        watches = store.frontend._watches
        async with watching(store), watching(store, "key=a"):
            assert watches._count == 2
        async with watching(store, "key=quiet") as stream:
            while watches._count > 1 or list(watches._feed._groups) != [Span(b"quiet", b"quiet\0")]:
                await stream.block()  # after a few rounds they are gone

    run(scenario)


def test_a_shutdown_ends_watches_with_a_word() -> None:
    async def scenario(store: Store) -> None:
        async with watching(store) as stream:
            stopping = asyncio.create_task(store.frontend.stop(5000))
            rest = await stream.response.content.read()
            assert b"shutting down, continue at another one" in rest
            await stopping

    run(scenario)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_watch_that_ends_within_an_event_is_cut_off(compacted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line after a part of an event would belong to the event."""

    async def scenario(store: Store) -> None:
        async with watching(store) as stream:
            monkeypatch.setattr(event_pages, "CACHE_BYTES", 0)
            for number in range(8):
                await store.call("PUT", f"/kv/{number}", b"x" * 1_000_000)
            if compacted:
                store.replica.machine.forget(store.replica.machine.position)
                ending = None
            else:
                ending = asyncio.create_task(store.frontend.stop(5000))
            received, error = bytearray(), None
            try:
                async for data in stream.response.content.iter_any():
                    received += data
            except aiohttp.ClientError as cut_off:
                error = cut_off
            assert error is not None
            assert b"shutting down" not in received
            assert b"event: lost" not in received
            if ending is not None:
                await ending

    run(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key=",
        "key=a&prefix=b",
        "prefix=a&start=b",
        "prefix=&from_revision=0",
        "prefix=&from_revision=2",
        "prefix=&x=1",
        "prefix=&consistency=now",
    ],
)
def test_a_watch_that_cannot_be_is_refused(query: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", f"/watch?{query}")
        assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-query")

    run(scenario)


def test_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        assert (await store.call("POST", "/watch?prefix=")).headers["allow"] == "GET, HEAD"
        bad = await store.call("GET", "/watch?prefix=", headers={"Last-Event-ID": "x"})
        assert "Last-Event-ID" in bad.problem()["detail"]
        monkeypatch.setattr("kvstore.server.http.watch.MAX_WATCHES", 0)
        assert (await store.call("GET", "/watch?prefix=")).status == 429
        monkeypatch.undo()
        store.replica.fails = Refused(Reason.NO_LEADER, Outcome.FAILED)
        assert (await store.call("GET", "/watch?prefix=")).status == 503

    run(scenario)


@pytest.mark.parametrize(("query", "first"), [("prefix=a", "2"), ("prefix=a&from_revision=1", "0")])
def test_a_client_that_reconnects_before_the_first_event_misses_none(query: str, first: str) -> None:
    """EventSource sends the last id that it received, so a stream begins with one."""

    async def scenario(store: Store) -> None:
        await put(store, "b1", "b2")
        async with await store.wire() as wire:
            await wire.ask(request("GET", f"/watch?{query}"))
            begin = (await wire.reader.readuntil(b"\n\n")).decode()
            assert f"id: {first}" in begin.splitlines()
        await put(store, "a")
        async with watching(store, query, Last_Event_ID=first) as stream:
            assert (await stream.event())[1]["key"] == "a"

    run(scenario)


EVENT_SOURCE = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
"""Headers of an EventSource that reconnects."""


def test_an_event_source_that_reconnects_without_a_leader_is_told_to_try_again() -> None:
    """After an error an EventSource never connects again, and a page cannot see the status."""

    async def scenario(store: Store) -> None:
        await put(store, "a")
        store.replica.fails = Refused(Reason.NO_LEADER, Outcome.FAILED)
        reply = await store.call("GET", "/watch?prefix=", headers=EVENT_SOURCE)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
        assert reply.headers["kv-revision"] == "1"
        assert reply.body.startswith(b"retry: 1000\n: A majority of the replicas is down")
        assert reply.body.endswith(b"\n\n")
        for other in ({}, {"Accept": "text/event-stream"}, {"Last-Event-ID": "1"}):
            assert (await store.call("GET", "/watch?prefix=", headers=other)).status == 503

    run(scenario)


def test_an_event_source_with_an_error_that_a_retry_does_not_help_is_refused() -> None:
    async def scenario(store: Store) -> None:
        wrong = {**EVENT_SOURCE, "Last-Event-ID": "9"}
        assert (await store.call("GET", "/watch?prefix=", headers=wrong)).status == 400
        store.replica.fails = Refused(Reason.WITNESS, Outcome.FAILED)
        assert (await store.call("GET", "/watch?prefix=", headers=EVENT_SOURCE)).status == 503

    run(scenario)
