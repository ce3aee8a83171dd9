"""Streams as proxies pass them on: to HTTP/1.0 without chunks, and with the headers that forbid to hold them back."""

import pytest

from storage.base import AppliedProgress, StatePage
from tests.unit.kvstore.server.http.fake import Store, run


@pytest.mark.parametrize("fields", ["", "Connection: keep-alive\r\n"])
@pytest.mark.parametrize("target", ["/kv/?prefix=", "/backup"])
def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_its_connection(target: str, fields: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = [StatePage([], 0, AppliedProgress())]
        await store.call("PUT", "/kv/a", b"1")
        whole = await store.call("GET", target, headers={"Accept": "application/x-ndjson"})
        async with await store.wire() as wire:
            request = f"GET {target} HTTP/1.0\r\nAccept: application/x-ndjson\r\n{fields}\r\n"
            reply = await wire.ask(request.encode())
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert "transfer-encoding" not in reply.headers
            assert (reply.headers["x-accel-buffering"], reply.headers["cache-control"]) == (
                "no",
                "no-store, no-transform",
            )
            assert await wire.closed() == whole.body

    run(scenario)


def test_a_watch_over_http_1_0_goes_on_until_the_replica_stops() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await wire.ask(b"GET /watch?prefix= HTTP/1.0\r\n\r\n")
            assert await wire.reader.readuntil(b"\n\n") == b"retry: 1000\nid: 0\n\n"
            for number in (1, 2):
                await store.call("PUT", "/kv/a", b"%d" % number)
                assert (await wire.reader.readuntil(b"\n\n")).startswith(b"id: %d\nevent: put\n" % number)
            await store.frontend.stop(1000)
            assert b"shutting down" in await wire.closed()

    run(scenario)


@pytest.mark.parametrize("target", ["/kv/?prefix=", "/kv/?limit=1", "/backup", "/watch?prefix=", "/events"])
def test_head_of_a_stream_has_the_headers_of_get_and_ends_at_once(target: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.pages = [StatePage([], 0, AppliedProgress())]
        await store.call("PUT", "/kv/a", b"1")
        heads = []
        for method in ("GET", "HEAD"):
            async with await store.wire() as wire:
                asked = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n"
                wire.send(asked.encode() + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = await wire.reader.readuntil(b"\r\n\r\n")
                heads.append(
                    sorted(line for line in head.split(b"\r\n") if not line.startswith((b"Date", b"Transfer")))
                )
                if method == "HEAD":
                    assert await wire.reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert heads[0] == heads[1]

    run(scenario)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("Application/X-NDJSON", "application/x-ndjson"),
        ("text/html, application/x-ndjson;q=0.5", "application/x-ndjson"),
        ("application/x-ndjson; q=0, */*", "application/json"),
        ("application/x-ndjson;q=0.000", "application/json"),
        ("application/x-ndjsonish", "application/json"),
    ],
)
def test_a_list_is_ndjson_if_the_client_accepts_that(accept: str, media: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", "/kv/", headers={"Accept": accept})
        assert reply.headers["content-type"] == media

    run(scenario)
