"""`Idempotency-Key`: the same request again gets the same answer."""

import json
from typing import Any

import pytest

from tests.unit.kvstore.server.http.fake import Store, request, run
from tests.unit.kvstore.server.http.test_leases import grant


@pytest.mark.parametrize(
    ("method", "target", "body", "headers"),
    [
        ("PUT", "/kv/a", b"v", {}),
        ("PUT", "/kv/a", b"v", {"If-None-Match": "*"}),
        ("PUT", "/kv/a", b"v", {"If-Match": '"1"'}),
        ("PUT", "/kv/a?ttl_s=5", b"v", {}),
        ("DELETE", "/kv/x", b"", {}),
        ("DELETE", "/kv/a", b"", {}),
        ("DELETE", "/kv/?prefix=", b"", {}),
        ("POST", "/txn", b'{"then": [{"put": {"key": "a", "value": "v"}}, {"get": {"key": "x"}}]}', {}),
        ("POST", "/leases", b'{"ttl_s": 5}', {}),
        ("POST", "/locks/l", b'{"ttl_s": 5}', {}),
    ],
)
def test_the_same_request_again_gets_the_same_answer(method: str, target: str, body: bytes, headers: Any) -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store)
        await store.call("PUT", "/kv/x", b"there")
        named = {**headers, "Idempotency-Key": f'"{lease}.1"'}
        first = await store.call(method, target, body, headers=named)
        revision = store.replica.machine.revision
        again = await store.call(method, target, body, headers=named)
        assert (again.status, again.body) == (first.status, first.body)
        assert store.replica.machine.revision == revision
        for other in ({"If-Match": '"9"'}, {"If-None-Match": '"9"'}):
            if method != "POST" and "prefix" not in target:
                reused = await store.call(method, target, body, headers={**other, **named})
                assert reused.status == 422 or other.keys() <= headers.keys()
        if body:
            reused = await store.call(method, target, body + b" ", headers=named)
            assert reused.problem()["type"].endswith("idempotency-key-reused")
        await store.call("DELETE", f"/leases/{lease}")
        expired = await store.call(method, target, body, headers=named)
        assert (expired.status, expired.problem()["outcome"]) == (410, "unknown")

    run(scenario)


def test_two_keys_are_none() -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store)
        fields = f"Idempotency-Key: {lease}.1\r\nIdempotency-Key: {lease}.2"
        async with await store.wire() as wire:
            wire.send(request("PUT", "/kv/a", fields, body=b"v"))
            reply = await wire.reply()
        assert reply.problem()["type"].endswith("invalid-idempotency-key")

    run(scenario)


def test_a_change_of_the_members_takes_no_key() -> None:
    async def scenario(store: Store) -> None:
        named = {"Idempotency-Key": f"{await grant(store)}.1"}
        for method, path in (("POST", "/members"), ("DELETE", "/members/n3"), ("POST", "/members/n3/promote")):
            refused = await store.call(method, path, b"", headers=named)
            assert refused.problem()["type"].endswith("invalid-idempotency-key")

    run(scenario)


def test_a_lock_is_released_once() -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store)
        await store.call("POST", "/locks/l", json.dumps({"lease": lease}))
        named = {"Idempotency-Key": f"{lease}.7"}
        replies = [await store.call("DELETE", f"/locks/l?lease={lease}", headers=named) for _ in range(2)]
        assert replies[0].body == replies[1].body
        assert [reply.status for reply in replies] == [200, 200]

    run(scenario)


def test_an_answer_that_was_too_long_is_not_given_again() -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store)
        await store.call("PUT", "/kv/a", bytes(100_000))
        named = {"Idempotency-Key": f"{lease}.1"}
        body = b'{"then": [{"get": {"key": "a"}}]}'
        assert (await store.call("POST", "/txn", body, headers=named)).status == 200
        again = await store.call("POST", "/txn", body, headers=named)
        assert again.problem()["type"].endswith("answer-not-kept")

    run(scenario)


@pytest.mark.parametrize("key", ["", "x", "1", "1.", ".1", "0.1", "1.0", "1.01x", "1.-1", "1.1.1", "9" * 30 + ".1"])
def test_a_key_that_cannot_be_is_refused(key: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("PUT", "/kv/a", b"v", headers={"Idempotency-Key": key})
        assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-idempotency-key")
        assert store.replica.machine.revision == 0

    run(scenario)


def test_what_may_be_repeated_anyway_takes_no_key() -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store)
        reply = await store.call("POST", f"/leases/{lease}/keepalive", headers={"Idempotency-Key": f"{lease}.1"})
        assert reply.status == 400

    run(scenario)
