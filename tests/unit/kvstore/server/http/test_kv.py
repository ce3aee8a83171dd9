import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.queries import Consistency
from kvstore.server.http.request_target import decode_key
from tests.unit.kvstore.server.http.fake import Store, request, run

MIB = 1024 * 1024


def test_a_put_creates_then_replaces() -> None:
    async def scenario(store: Store) -> None:
        first = await store.call("PUT", "/kv/a", b"one")
        assert (first.status, json.loads(first.body)) == (201, {"key": "a", "revision": 1, "version": 1})
        assert first.headers["etag"] == '"1"'
        assert first.headers["content-type"] == "application/json"
        second = await store.call("PUT", "/kv/a", b"two")
        assert (second.status, json.loads(second.body)) == (200, {"key": "a", "revision": 2, "version": 2})
        assert second.headers["etag"] == '"2"'
        assert store.replica.records[b"a"].value == b"two"

    run(scenario)


def test_a_get_returns_the_value_byte_for_byte_and_where_it_stands() -> None:
    async def scenario(store: Store) -> None:
        value = bytes(range(256)) * 5
        await store.call("PUT", "/kv/b", b"")
        await store.call("PUT", "/kv/a", b"old")
        await store.call("PUT", "/kv/a", value)
        got = await store.call("GET", "/kv/a")
        assert (got.status, got.body) == (200, value)
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["etag"] == '"3"'
        assert got.headers["kv-revision"] == "3"
        assert got.headers["kv-create-revision"] == "2"
        assert got.headers["kv-version"] == "2"
        assert "date" in got.headers
        assert "kv-applied-slot" not in got.headers

    run(scenario)


def test_a_head_has_the_headers_of_the_get_and_no_body() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"12345")
        async with await store.wire() as wire:
            head = await wire.ask(request("HEAD", "/kv/a"))
            got = await wire.ask(request("GET", "/kv/a"))
            assert head.line == got.line
            assert head.headers.keys() == got.headers.keys()
            assert head.headers["content-length"] == "5"
            absent = await wire.ask(request("HEAD", "/kv/b"))
            assert absent.status == 404
            assert (await wire.ask(request("GET", "/kv/a"))).body == b"12345"

    run(scenario)


def test_a_delete_says_what_was_deleted() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        await store.call("PUT", "/kv/a", b"2")
        gone = await store.call("DELETE", "/kv/a")
        assert gone.status == 200
        assert json.loads(gone.body) == {"key": "a", "revision": 3, "deleted_revision": 2, "version": 2}
        again = await store.call("DELETE", "/kv/a")
        assert again.status == 404
        assert again.problem()["outcome"] == "failed"
        absent = await store.call("GET", "/kv/a")
        assert absent.status == 404
        assert "outcome" not in absent.problem()

    run(scenario)


KEYS = {
    "a": b"a",
    "a//b": b"a//b",
    "/": b"/",
    "//": b"//",
    "a/": b"a/",
    "..": b"..",
    "../../etc/passwd": b"../../etc/passwd",
    "a/./b": b"a/./b",
    "a%2Fb": b"a/b",
    "a%2fb": b"a/b",
    "%2E%2E": b"..",
    "a%00": b"a\x00",
    "%01": b"\x01",
    "%ff%FE": b"\xff\xfe",
    "%C3%A9": "é".encode(),
    "a+b": b"a+b",
    "a%20b": b"a b",
    "a%25b": b"a%b",
    "a%3Fb": b"a?b",
    "a%23b": b"a#b",
    "a;b=c&d": b"a;b=c&d",
    "%0D%0A": b"\r\n",
    "a" * 1024: b"a" * 1024,
    "%61" * 1024: b"a" * 1024,
}


def test_the_key_is_the_rest_of_the_path_whatever_it_looks_like(subtests: pytest.Subtests) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            for escaped, key in KEYS.items():
                with subtests.test(escaped[:20]):
                    assert (await wire.ask(request("PUT", f"/kv/{escaped}", body=b"v"))).status == 201
                    assert list(store.replica.records) == [key]
                    assert (await wire.ask(request("GET", f"/kv/{escaped}"))).body == b"v"
                    assert (await wire.ask(request("DELETE", f"/kv/{escaped}"))).status == 200

    run(scenario)


@given(st.binary(min_size=1, max_size=1024).filter(lambda key: key[0] != 0))
def test_every_key_survives_its_escapes(key: bytes) -> None:
    assert decode_key("".join(f"%{byte:02X}" for byte in key)) == key


def test_a_key_that_is_no_text_is_told_in_base64() -> None:
    async def scenario(store: Store) -> None:
        put = await store.call("PUT", "/kv/%ff%00", b"v")
        assert json.loads(put.body) == {"key_base64": "/wA=", "revision": 1, "version": 1}

    run(scenario)


NO_KEYS = ["%zz", "%2", "a%", "%%41", "a" * 1025, "%61" * 1025, "%00", "%00a"]


def test_a_key_that_cannot_be_is_refused(subtests: pytest.Subtests) -> None:
    """Without any key, GET lists all keys, PUT is refused with 405, and DELETE has to name its keys."""
    calls = [*itertools.product(["GET", "PUT", "DELETE"], NO_KEYS), ("DELETE", "")]

    async def scenario(store: Store) -> None:
        for method, escaped in calls:
            async with await store.wire() as wire:
                with subtests.test(method=method, escaped=escaped[:20]):
                    reply = await wire.ask(request(method, f"/kv/{escaped}"))
                    assert reply.status == 400
                    problem = reply.problem()
                    kind = "invalid-key" if escaped else "invalid-query"
                    assert problem["type"] == f"urn:kvstore:problem:{kind}"
                    assert problem.get("outcome") == (None if method == "GET" else "failed")
                    assert (await wire.ask(request("GET", "/livez"))).status == 200
                    assert store.replica.arrived.empty()

    run(scenario)


@pytest.mark.parametrize(
    ("query", "consistency"),
    [
        ("", Consistency.LINEARIZABLE),
        ("?", Consistency.LINEARIZABLE),
        ("?consistency=linearizable", Consistency.LINEARIZABLE),
        ("?consistency=quorum", Consistency.QUORUM),
        ("?consistency=stale", Consistency.STALE),
        ("?consistency=st%61le", Consistency.STALE),
    ],
)
def test_a_read_chooses_its_consistency(query: str, consistency: Consistency) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await wire.ask(request("GET", f"/kv/a{query}"))
            await wire.ask(request("HEAD", f"/kv/a{query}"))
        assert store.replica.reads == [(b"a", consistency), (b"a", consistency)]

    run(scenario)


def test_a_stale_304_tells_how_stale_too() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"v")
        reply = await store.call("GET", "/kv/a?consistency=stale", headers={"If-None-Match": '"1"'})
        assert (reply.status, reply.headers["kv-age-ms"], reply.headers["kv-applied-revision"]) == (304, "4", "1")

    run(scenario)


def test_a_stale_read_tells_how_stale() -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        for key, status in (("a", 200), ("b", 404)):
            reply = await store.call("GET", f"/kv/{key}?consistency=stale")
            assert reply.status == status
            assert reply.headers["kv-applied-slot"] == "11"
            assert reply.headers["kv-applied-revision"] == "1"
            assert reply.headers["kv-age-ms"] == "4"
        store.replica.age_ms = None
        assert "kv-age-ms" not in (await store.call("GET", "/kv/a?consistency=stale")).headers

    run(scenario)


@pytest.mark.parametrize(
    ("method", "query", "told"),
    [
        ("GET", "consistency=strong", "linearizable, quorum, stale"),
        ("GET", "consistency=", "linearizable, quorum, stale"),
        ("GET", "consistency", "consistency"),
        ("GET", "Consistency=stale", "consistency"),
        ("GET", "consistency=stale&consistency=stale", "consistency"),
        ("GET", "consistency=stale&x=1", "consistency"),
        ("GET", "&&", "consistency"),
        ("GET", "consistency=%ff", "consistency"),
        ("PUT", "consistency=stale", "lease, ttl_s, lock, fence"),
        ("DELETE", "x=1", "lock, fence"),
    ],
)
def test_a_query_nobody_knows_is_refused_and_the_known_ones_are_named(method: str, query: str, told: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call(method, f"/kv/a?{query}")
        assert reply.status == 400
        assert reply.problem()["type"] == "urn:kvstore:problem:invalid-query"
        assert told in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


def test_what_does_not_exist_and_what_is_not_allowed() -> None:
    async def scenario(store: Store) -> None:
        for target in ("/kv", "/kvx/a", "/x", "/KV/a", "//kv/a"):
            async with await store.wire() as wire:
                reply = await wire.ask(request("GET", target))
                assert reply.status == 404
                assert "/kv/{key}" in reply.problem()["detail"]
                assert "/status" in reply.problem()["detail"]
        for method in ("POST", "PATCH", "OPTIONS", "TRACE"):
            reply = await store.call(method, "/kv/a")
            assert reply.status == 405
            assert reply.headers["allow"] == "GET, HEAD, PUT, DELETE"
            assert "PUT" in reply.problem()["detail"]

    run(scenario)
