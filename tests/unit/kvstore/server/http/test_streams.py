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
