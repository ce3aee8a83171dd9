"""If-Match, If-None-Match, and reads as of a revision."""

import json

import pytest

from kvstore.api.queries import Consistency
from storage.base import first_of
from tests.unit.kvstore.server.http.fake import Reply, Store, Wire, request, run


async def ask(wire: Wire, method: str, *fields: str, key: str = "a", body: bytes = b"v") -> Reply:
    if method == "PUT":
        fields = (*fields, f"Content-Length: {len(body)}")
    return await wire.ask(request(method, f"/kv/{key}", *fields) + (body if method == "PUT" else b""))


def test_a_put_with_if_match_is_done_only_on_the_revision_that_it_names() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await ask(wire, "PUT")).status == 201
            done = await ask(wire, "PUT", 'If-Match: "1"', body=b"w")
            assert (done.status, done.headers["etag"]) == (200, '"2"')
            assert json.loads(done.body) == {"key": "a", "revision": 2, "version": 2}
            failed = await ask(wire, "PUT", 'If-Match: "1"', body=b"x")
            assert (failed.status, failed.headers["etag"], failed.headers["kv-revision"]) == (412, '"2"', "2")
            problem = failed.problem()
            assert (problem["type"], problem["outcome"]) == ("urn:kvstore:problem:precondition-failed", "failed")
            assert 'If-Match: "2"' in problem["detail"]
            assert store.replica.records[b"a"].value == b"w"

    run(scenario)


@pytest.mark.parametrize(
    ("field", "absent", "present"),
    [
        ("If-Match: *", 412, 200),
        ("If-None-Match: *", 201, 412),
        ('If-None-Match: "7"', 201, 200),
        ('If-None-Match: "1"', 201, 412),
        ('If-Match: "7"', 412, 412),
        ('If-Match: "1"\r\nIf-None-Match: "9"', 412, 200),
        # weak tags match only where the comparison is weak: RFC 9110, 13.1.1 and 13.1.2
        ('If-Match: W/"1"', 412, 412),
        ('If-None-Match: W/"1"', 201, 412),
        # lists, also with empty elements
        ('If-Match: "7", "1"', 412, 200),
        ('If-Match: "7" , ,"8",', 412, 412),
        ('If-Match: W/"1", "7"', 412, 412),
        ('If-None-Match: "7", "8"', 201, 200),
        ('If-None-Match: "7", "1"', 201, 412),
        ('If-Match: "7", "1"\r\nIf-None-Match: "9", "8"', 412, 200),
        ('If-Match: "7", "1"\r\nIf-None-Match: "1", "8"', 412, 412),
        # tags of other servers are valid, and match nothing
        ('If-Match: "x"', 412, 412),
        ('If-Match: "0"', 412, 412),
        ('If-Match: "x,y", "1"', 412, 200),
        ('If-Match: "99999999999999999999"', 412, 412),
        ('If-Match: ""', 412, 412),
        ('If-None-Match: "x"', 201, 200),
        ('If-None-Match: "0"', 201, 200),
        # a key has no modification date, so these must be ignored: RFC 9110, 13.1.3 to 13.1.5
        ("If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT", 201, 200),
        ("If-Unmodified-Since: x", 201, 200),
        ("If-Modified-Since: Sat, 29 Oct 2094 19:43:31 GMT", 201, 200),
    ],
)
def test_the_conditions_of_a_put(field: str, absent: int, present: int) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await ask(wire, "PUT", field, key="b")).status == absent
        store.replica.machine.position = 0
        async with await store.wire() as wire:
            await ask(wire, "PUT")
            assert (await ask(wire, "PUT", field)).status == present

    run(scenario)


def test_a_condition_in_two_fields_is_one_list() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await ask(wire, "PUT")
            two = ('If-None-Match: "7"', 'If-None-Match: "1"')
            assert (await ask(wire, "GET", *two)).status == 304
            assert (await ask(wire, "PUT", *two)).status == 412
            assert (await ask(wire, "PUT", 'If-Match: "7"', 'If-Match: "1"')).status == 200

    run(scenario)


def test_the_conditions_of_a_delete() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            absent = await ask(wire, "DELETE", "If-Match: *")
            assert absent.status == 412
            assert "etag" not in absent.headers
            await ask(wire, "PUT")
            assert (await ask(wire, "DELETE", 'If-Match: "3"')).status == 412
            assert (await ask(wire, "DELETE", 'If-Match: "1"')).status == 200
            assert (await ask(wire, "DELETE")).status == 404

    run(scenario)


@pytest.mark.parametrize(
    "value", ["1", "", '"1', '"1" *', '*, "1"', '"1" "2"', 'w/"1"', '"a b"', ",", ", ".join(['"1"'] * 101)]
)
@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_a_condition_that_cannot_be_understood_is_refused(name: str, value: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            for method in ("PUT", "DELETE"):
                reply = await ask(wire, method, f"{name}: {value}")
                assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-condition")
                assert name in reply.problem()["detail"]
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_get_of_a_revision_that_the_client_has_is_not_answered_again() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await ask(wire, "PUT")
            for field in ('If-None-Match: "1"', 'If-None-Match: "7", W/"1"', "If-None-Match: *"):
                same = await ask(wire, "GET", field)
                assert (same.status, same.headers["etag"], same.body) == (304, '"1"', b"")
                assert "content-length" not in same.headers
            assert (await ask(wire, "GET", 'If-None-Match: "2"')).body == b"v"
            assert (await ask(wire, "GET", 'If-Match: "1"')).body == b"v"
            assert (await ask(wire, "GET", 'If-Match: "2"')).status == 412
            assert (await ask(wire, "GET", 'If-None-Match: "1"', 'If-Match: "2"')).status == 412
            assert (await ask(wire, "GET", 'If-Match: W/"1"')).status == 412
            assert (await ask(wire, "GET", "If-Modified-Since: Sat, 29 Oct 2094 19:43:31 GMT")).body == b"v"
            assert (await ask(wire, "GET", 'If-Range: "1"', "Range: bytes=0-0")).body == b"v"
            assert (await ask(wire, "GET", 'If-None-Match: "x"')).body == b"v"
            for field in ("If-None-Match: x", "If-None-Match: ", "If-Match: "):
                assert (await ask(wire, "GET", field)).status == 400
            assert (await ask(wire, "GET", "If-None-Match: *", key="b")).status == 404
            assert (await wire.ask(request("HEAD", "/kv/a", 'If-None-Match: "1"'))).status == 304

    run(scenario)


def test_a_key_is_read_as_of_a_revision() -> None:
    async def scenario(store: Store) -> None:
        for value in (b"one", b"two", b"three"):
            await store.call("PUT", "/kv/a", value)
        old = await store.call("GET", "/kv/a?revision=2&consistency=stale")
        assert (old.status, old.body, old.headers["etag"]) == (200, b"two", '"2"')
        assert old.headers["kv-applied-revision"] == "2"
        assert store.replica.reads[-1] == (b"a", Consistency.STALE)
        assert (await store.call("GET", "/kv/b?revision=1")).status == 404
        ahead = await store.call("GET", "/kv/a?revision=4")
        assert ahead.status == 400
        assert "the store is at revision 3" in ahead.problem()["detail"]
        lagging = await store.call("GET", "/kv/a?revision=4&consistency=stale")
        assert (lagging.status, lagging.headers["retry-after"]) == (503, "1")
        assert "another replica" in lagging.problem()["detail"]
        store.replica.machine.forget(first_of(2))
        gone = await store.call("GET", "/kv/a?revision=1")
        assert (gone.status, gone.headers["kv-oldest-revision"]) == (410, "2")
        assert gone.problem()["type"] == "urn:kvstore:problem:compacted"
        assert (await store.call("GET", "/kv/a?revision=2")).body == b"two"

    run(scenario)


@pytest.mark.parametrize("revision", ["0", "-1", "x", "", "1.5", "9" * 30, "1&revision=2"])
def test_a_revision_that_is_none_is_refused(revision: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", f"/kv/a?revision={revision}")
        assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-query")

    run(scenario)


@pytest.mark.parametrize("field", ['If-Match: "1"', "If-None-Match: *", "Content-Range: bytes 0-1/2"])
@pytest.mark.parametrize("call", [("POST", "/leases"), ("POST", "/locks/l"), ("DELETE", "/locks/l"), ("POST", "/txn")])
def test_a_condition_on_another_write_is_not_ignored(call: tuple[str, str], field: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request(*call, field))
            assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:unsupported-header")
        assert store.replica.arrived.empty()

    run(scenario)
