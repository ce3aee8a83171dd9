"""GET and DELETE of many keys."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Consistency
from kvstore.server.http import lists
from kvstore.server.pacer import BackgroundKind
from kvstore.state_machine import reads, transactions
from storage.base import first_of
from tests.unit.kvstore.server.http.fake import Store, request, run


async def fill(store: Store, *keys: str) -> None:
    for key in keys:
        await store.call("PUT", f"/kv/{key}", key.encode())


async def listed(store: Store, query: str) -> dict[str, Any]:
    reply = await store.call("GET", f"/kv/?{query}")
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    document: dict[str, Any] = json.loads(reply.body)
    assert reply.headers["kv-revision"] == str(document["revision"])
    return document


def keys(document: dict[str, Any]) -> list[str]:
    return [record["key"] for record in document["records"]]


def test_keys_are_listed_in_order_with_what_they_hold() -> None:
    async def scenario(store: Store) -> None:
        await fill(store, "b/2", "a", "b/1", "c")
        await store.call("PUT", "/kv/b/1", b"\xff")
        assert await listed(store, "prefix=b/") == {
            "revision": 5,
            "records": [
                {"key": "b/1", "value_base64": "/w==", "revision": 5, "create_revision": 3, "version": 2},
                {"key": "b/2", "value": "b/2", "revision": 1, "create_revision": 1, "version": 1},
            ],
            "more": False,
        }
        assert keys(await listed(store, "")) == ["a", "b/1", "b/2", "c"]
        assert keys(await listed(store, "start=b&end=c")) == ["b/1", "b/2"]
        assert keys(await listed(store, "start=b/2")) == ["b/2", "c"]
        assert keys(await listed(store, "end=b/2")) == ["a", "b/1"]
        assert keys(await listed(store, "order=desc&limit=2")) == ["c", "b/2"]
        assert keys(await listed(store, "prefix=nothing")) == []
        first = (await listed(store, "keys_only=true&limit=1"))["records"]
        assert first == [{"key": "a", "revision": 2, "create_revision": 2, "version": 1}]

    run(scenario)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_are_of_one_revision_whatever_happens_in_between(order: str) -> None:
    async def scenario(store: Store) -> None:
        await fill(store, *"abcdef")
        cursor, seen, revisions = "", [], set()
        while True:
            page = await listed(store, f"limit=2&order={order}{cursor}")
            seen += keys(page)
            revisions.add(page["revision"])
            if not page["more"]:
                break
            cursor = f"&cursor={page['cursor']}"
            await store.call("DELETE", "/kv/c")
            await fill(store, "d", "dd", "0", "z")
        assert seen == sorted("abcdef", reverse=order == "desc")
        assert revisions == {6}

    run(scenario)


def test_a_list_as_of_a_revision() -> None:
    async def scenario(store: Store) -> None:
        await fill(store, "a", "b", "a")
        await store.call("DELETE", "/kv/b")
        assert keys(await listed(store, "revision=3")) == ["a", "b"]
        assert keys(await listed(store, "revision=1&consistency=stale")) == ["a"]
        assert store.replica.reads[-1] == (b"", Consistency.STALE)
        store.replica.machine.forget(first_of(2))
        assert (await store.call("GET", "/kv/?revision=1")).status == 410
        assert (await store.call("GET", "/kv/?revision=9")).status == 400

    run(scenario)


@pytest.mark.parametrize("limit", ["", "&limit=5"])
def test_ndjson_is_a_record_a_line_and_an_end_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(lists, "STREAMED", 2)

    async def scenario(store: Store) -> None:
        await fill(store, *"abcdefg")
        reply = await store.call("GET", f"/kv/?prefix={limit}", headers={"Accept": lists.NDJSON})
        lines = [json.loads(line) for line in reply.body.splitlines()]
        most = 5 if limit else 7
        assert [line["key"] for line in lines[:-1]] == list("abcdefg"[:most])
        assert lines[-1] == {"revision": 7, "count": most, "more": bool(limit)}

    run(scenario)


def test_ndjson_is_read_in_pages_of_limited_size_in_turns_of_the_pacer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "STREAMED_BYTES", 100)

    async def scenario(store: Store) -> None:
        for key in "abcdefg":
            await store.call("PUT", f"/kv/{key}", b"x" * 40)
        kinds: list[BackgroundKind] = []
        submit = store.replica.pacer.submit

        def record(kind: BackgroundKind, work: Callable[[], object]) -> None:
            kinds.append(kind)
            submit(kind, work)

        monkeypatch.setattr(store.replica.pacer, "submit", record)
        reply = await store.call("GET", "/kv/?prefix=", headers={"Accept": lists.NDJSON})
        lines = [json.loads(line) for line in reply.body.splitlines()]
        assert [line["key"] for line in lines[:-1]] == list("abcdefg")
        assert kinds == [BackgroundKind.LIST] * 4  # two records a page

    run(scenario)


def test_a_page_is_read_in_a_turn_of_the_pacer_once_the_replica_is_current() -> None:
    async def scenario(store: Store) -> None:
        await fill(store, "a", "b")
        reads: list[tuple[int, Consistency]] = []
        read, pacer = store.replica.read, store.replica.pacer
        turns: list[BackgroundKind] = []
        submit = pacer.submit

        def record(query: Any, consistency: Consistency, reply: Any) -> None:
            reads.append((query.limit, consistency))
            read(query, consistency, reply)

        def record_turn(kind: BackgroundKind, work: Callable[[], object]) -> None:
            turns.append(kind)
            submit(kind, work)

        store.replica.read = record  # type: ignore[method-assign]
        pacer.submit = record_turn  # type: ignore[method-assign]
        page = await store.call("GET", "/kv/?prefix=")
        assert [record["key"] for record in json.loads(page.body)["records"]] == ["a", "b"]
        assert reads == [(0, Consistency.LINEARIZABLE), (1000, Consistency.STALE)]
        assert turns == [BackgroundKind.LIST]

    run(scenario)


@pytest.mark.parametrize("accept", ["application/json", lists.NDJSON])
def test_a_list_passes_many_deleted_keys_in_several_turns(monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    monkeypatch.setattr(reads, "MAX_ABSENT", 3)

    async def scenario(store: Store) -> None:
        keys = [f"{number:02}" for number in range(20)]
        await fill(store, *keys)
        for key in keys[2:-2]:
            await store.call("DELETE", f"/kv/{key}")
        turns: list[BackgroundKind] = []
        submit = store.replica.pacer.submit

        def record(kind: BackgroundKind, work: Callable[[], object]) -> None:
            turns.append(kind)
            submit(kind, work)

        monkeypatch.setattr(store.replica.pacer, "submit", record)
        reply = await store.call("GET", "/kv/?prefix=&limit=3", headers={"Accept": accept})
        lines = [json.loads(line) for line in reply.body.splitlines()]
        records = lines[0]["records"] if accept == "application/json" else lines[:-1]
        assert [each["key"] for each in records] == ["00", "01", "18"]
        assert lines[-1]["more"]
        assert len(turns) == 6  # five times three deleted keys, and the last one

    run(scenario)


def test_lists_as_ndjson_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may hold a long record for a client that does not read."""
    monkeypatch.setattr(lists, "MAX_STREAMS", 1)

    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        first = asyncio.create_task(store.call("GET", "/kv/", headers={"Accept": lists.NDJSON}))
        await store.replica.arrived.get()
        refused = await store.call("GET", "/kv/", headers={"Accept": lists.NDJSON})
        assert (refused.status, refused.problem()["type"]) == (429, "urn:kvstore:problem:overloaded")
        store.replica.gate.set()
        assert (await first).status == 200
        assert (await store.call("GET", "/kv/", headers={"Accept": lists.NDJSON})).status == 200

    run(scenario)


def test_ndjson_of_no_keys_is_only_the_end() -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", "/kv/?prefix=a", headers={"Accept": lists.NDJSON})
        assert json.loads(reply.body) == {"revision": 0, "count": 0, "more": False}

    run(scenario)


def test_ndjson_that_cannot_go_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "STREAMED", 1)

    async def scenario(store: Store) -> None:
        await fill(store, "a", "b")
        read, asked = store.replica.read, 0

        def fail(query: Any, consistency: Consistency, reply: Any) -> None:
            nonlocal asked
            asked += 1
            if asked == 3:  # the first page takes two reads
                store.replica.fails = Refused(Reason.STOPPING, Outcome.FAILED)
            read(query, consistency, reply)

        store.replica.read = fail  # type: ignore[method-assign]
        lines = (await store.call("GET", "/kv/", headers={"Accept": lists.NDJSON})).body.splitlines()
        assert [json.loads(line).get("key") for line in lines] == ["a", None]
        assert json.loads(lines[1]) == {"error": "stopping (failed)", "count": 1}

    run(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "prefix=a&start=b",
        "limit=0",
        "limit=x",
        "order=up",
        "keys_only=1",
        "cursor=xyz",
        "cursor=%ff",
        "cursor=aGVsbG8=",
        "unknown=1",
        "prefix=a&prefix=b",
        "consistency=never",
    ],
)
def test_a_query_that_cannot_be_is_refused(query: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", f"/kv/?{query}")
        assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-query")
        assert store.replica.arrived.empty()

    run(scenario)


def test_many_keys_are_deleted_in_one_revision() -> None:
    async def scenario(store: Store) -> None:
        await fill(store, "a/1", "a/2", "b", "a/3")
        reply = await store.call("DELETE", "/kv/?prefix=a/")
        assert (reply.status, json.loads(reply.body)) == (200, {"revision": 5, "deleted": 3})
        assert list(store.replica.records) == [b"b"]
        assert json.loads((await store.call("DELETE", "/kv/?start=x&end=y")).body) == {"revision": 5, "deleted": 0}
        assert json.loads((await store.call("DELETE", "/kv/?prefix=")).body) == {"revision": 6, "deleted": 1}

    run(scenario)


def test_to_delete_all_has_to_be_said() -> None:
    async def scenario(store: Store) -> None:
        for query in ("", "?", "?limit=3", "?prefix=a&end=b"):
            assert (await store.call("DELETE", f"/kv/{query}")).status == 400
        assert store.replica.arrived.empty()
        async with await store.wire() as wire:
            assert (await wire.ask(request("POST", "/kv/?prefix=a"))).status == 405

    run(scenario)


def test_too_many_at_once_are_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MAX_KEYS", 1)

    async def scenario(store: Store) -> None:
        await fill(store, "a", "b")
        reply = await store.call("DELETE", "/kv/?prefix=")
        assert (reply.status, reply.problem()["outcome"]) == (413, "failed")
        assert "smaller ranges" in reply.problem()["detail"]
        assert len(store.replica.records) == 2
        monkeypatch.setattr(transactions, "MAX_KEYS", 100_000)
        steps = [json.loads((await store.call("DELETE", "/kv/?prefix=&limit=1")).body) for _ in range(2)]
        assert [(step["deleted"], step["more"]) for step in steps] == [(1, True), (1, False)]
        assert (await store.call("DELETE", "/kv/?prefix=&limit=100001")).status == 400

    run(scenario)


@pytest.mark.parametrize(
    ("key", "prefix", "found"),
    [
        ("c%2B%2B", "c++", True),
        ("c++", "c%2B%2B", True),
        ("c++", "c%20%20", False),
        ("a%20b", "a%20", True),
        ("a%20b", "a+", False),
        ("%2525", "%2525", True),
        ("%FF", "%FF", True),
        ("a;b", "a;", True),
        ("a=b", "a=", True),
    ],
)
def test_a_query_is_percent_encoded_like_a_path(key: str, prefix: str, found: bool) -> None:
    """A plus sign is a plus sign: `?prefix=c++` must not look for two spaces."""

    async def scenario(store: Store) -> None:
        assert (await store.call("PUT", f"/kv/{key}", b"v")).status == 201
        for target in (f"/kv/?prefix={prefix}", f"/kv/?start={prefix}&end={prefix}~"):
            page = json.loads((await store.call("GET", target)).body)
            assert bool(page["records"]) is found
        assert json.loads((await store.call("DELETE", f"/kv/?prefix={prefix}")).body)["deleted"] == int(found)

    run(scenario)


@pytest.mark.parametrize("query", ["prefix=100%", "prefix=%zz", "prefix=%f", "%=1", "prefix=a&&limit=1", "prefix", "&"])
def test_a_query_with_a_broken_escape_or_without_a_value_is_refused(query: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", f"/kv/?{query}")
        assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-query")

    run(scenario)
