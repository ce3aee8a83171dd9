"""`/events` and `/ui`: what they tell, that nothing is done while nobody looks, and who may write from a browser."""

import asyncio
import json
import re
from typing import Any

import pytest

from kvstore.server.http import events
from kvstore.server.http.events import INTERVAL_S, Served, served
from kvstore.server.metrics import REQUEST_BUCKETS_S
from paxos.messages import Heartbeat
from paxos.types import Ballot
from tests.unit.kvstore.server.http.fake import Store, Wire, request, run


async def glimpse(wire: Wire) -> dict[str, Any]:
    data = await wire.reader.readuntil(b"\n\n")
    found = re.search(rb"data: (.*)\n\n", data)
    if found is None:
        return await glimpse(wire)
    document: dict[str, Any] = json.loads(found[1])
    return document


async def looking(store: Store) -> Wire:
    wire = await store.wire()
    wire.send(request("GET", "/events"))
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    await wire.reader.readuntil(b"retry: 1000\n\n")
    return wire


def test_a_reader_sees_what_happens_and_afterwards_nobody_is_told() -> None:
    async def scenario(store: Store) -> None:
        assert store.replica.tapped is None
        async with await looking(store) as wire:
            assert store.replica.tapped is not None
            store.replica.tapped.received("n2", Heartbeat(Ballot(3, "n2"), 1, 0))
            await store.call("PUT", "/kv/a", b"v")
            seen = await glimpse(wire)
            assert seen["status"]["id"] == "n1"
            assert [message["kind"] for message in seen["messages"]] == ["Heartbeat"]
            assert seen["requests"]["PUT"]["count"] == 1
            assert (await glimpse(wire))["number"] == seen["number"] + 1
        while store.replica.tapped is not None:  # noqa: ASYNC110 - the server notices as it writes
            await asyncio.sleep(INTERVAL_S / 10)

    run(scenario)


def test_two_readers_share_a_tap() -> None:
    async def scenario(store: Store) -> None:
        async with await looking(store) as one:
            trace = store.replica.tapped
            async with await looking(store) as other:
                assert store.replica.tapped is trace
                first, second = await glimpse(one), await glimpse(other)
                assert first["number"] <= second["number"]

    run(scenario)


def test_a_shutdown_ends_the_looking() -> None:
    async def scenario(store: Store) -> None:
        async with await looking(store) as wire:
            await store.frontend.stop(5000)
            await wire.closed()
        assert store.replica.tapped is None

    run(scenario)


def test_too_many_readers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_READERS", 1)

    async def scenario(store: Store) -> None:
        async with await looking(store):
            assert (await store.call("GET", "/events")).status == 429
        assert (await store.call("POST", "/events")).status == 405

    run(scenario)


def test_quantiles_are_as_fine_as_the_buckets() -> None:
    longest = len(REQUEST_BUCKETS_S)
    counts = [0] * (longest + 1)
    assert served(counts, None) == Served(0, None, None)
    counts[0], counts[3] = 98, 2
    assert served(counts, None) == Served(100, 0.5, 5.0)
    assert served(counts, [90, 0, 0, 0, *[0] * (longest - 3)]) == Served(10, 0.5, 5.0)
    counts[longest] = 1000
    assert served(counts, None).p99_ms == 1000 * REQUEST_BUCKETS_S[-1]


@pytest.mark.parametrize("path", ["/ui", "/ui/app.js", "/ui/style.css", "/ui/keys.js"])
def test_the_page_and_its_parts_come_from_here_and_may_load_nothing_else(path: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", path)
        assert reply.status == 200
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert re.findall(rb"https?://(?!www\.w3\.org/2000/svg)", reply.body) == []
        again = await store.call("GET", path, headers={"If-None-Match": reply.headers["etag"]})
        assert again.status == 304
        assert (await store.call("GET", "/ui/nothing.js")).status == 404

    run(scenario)


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Origin": "http://elsewhere.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://here"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({}, False),
    ],
)
def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], refused: bool) -> None:
    async def scenario(store: Store) -> None:
        body = b'{"then": [{"put": {"key": "a", "value": "v"}}]}'
        reply = await store.call("POST", "/txn", body, headers={"Content-Type": "text/plain", **headers})
        assert reply.status == (403 if refused else 200)
        assert (b"a" in store.replica.records) is not refused
        assert (await store.call("GET", "/kv/x", headers=headers)).status == 404

    run(scenario)


def test_the_own_page_may_write() -> None:
    async def scenario(store: Store) -> None:
        headers = {"Origin": f"http://127.0.0.1:{store.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await store.call("PUT", "/kv/a", b"v", headers=headers)).status == 201
        assert (await store.call("DELETE", "/kv/a", headers=headers)).status == 200

    run(scenario)
