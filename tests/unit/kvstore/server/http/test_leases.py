"""`/leases`, and what goes with a lease."""

import json
from typing import Any

import pytest

from kvstore.state_machine import leases as leasing
from tests.unit.kvstore.server.http.fake import Store, run


async def grant(store: Store, ttl_s: float = 10) -> int:
    reply = await store.call("POST", "/leases", json.dumps({"ttl_s": ttl_s}))
    assert reply.status == 201
    number = int(json.loads(reply.body)["id"])
    assert reply.headers["location"] == f"/leases/{number}"
    return number


async def document(store: Store, method: str, target: str, status: int = 200) -> Any:
    reply = await store.call(method, target)
    assert reply.status == status, reply.body
    return json.loads(reply.body)


def test_a_lease_from_its_grant_to_its_end() -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store, 2.5)
        put = await store.call("PUT", f"/kv/a?lease={lease}", b"v")
        assert json.loads(put.body) == {"key": "a", "revision": 2, "version": 1, "lease": lease}
        assert (await store.call("GET", "/kv/a")).headers["kv-lease"] == str(lease)
        listed = await document(store, "GET", "/kv/?prefix=")
        assert [record["lease"] for record in listed["records"]] == [lease]
        alive = await document(store, "POST", f"/leases/{lease}/keepalive")
        assert alive == {"id": lease, "ttl_s": 2.5}
        told = {"id": lease, "ttl_s": 2.5, "left_s": 2.5, "key_count": 1}
        assert await document(store, "GET", f"/leases/{lease}") == {**told, "keys": [{"key": "a"}]}
        assert (await document(store, "GET", "/leases"))["leases"] == [told]
        assert await document(store, "DELETE", f"/leases/{lease}") == {"revision": 4, "deleted": 1}
        assert (await store.call("GET", "/kv/a")).status == 404
        for method, target in (("GET", ""), ("DELETE", ""), ("POST", "/keepalive")):
            assert (await store.call(method, f"/leases/{lease}{target}")).problem()["type"].endswith("no-such-lease")

    run(scenario)


def test_a_key_with_a_lease_of_its_own() -> None:
    async def scenario(store: Store) -> None:
        put = await store.call("PUT", "/kv/a?ttl_s=1.5", b"v", headers={"If-None-Match": "*"})
        assert json.loads(put.body)["lease"] == 1
        assert (await document(store, "GET", "/leases/1"))["ttl_s"] == 1.5
        assert (await store.call("PUT", "/kv/a", b"w")).status == 200
        assert "kv-lease" not in (await store.call("GET", "/kv/a")).headers
        assert (await store.call("GET", "/leases/1")).status == 404

    run(scenario)


def test_leases_are_listed_in_pages() -> None:
    async def scenario(store: Store) -> None:
        leases = [await grant(store) for _ in range(5)]
        first = await document(store, "GET", "/leases?limit=2")
        assert ([each["id"] for each in first["leases"]], first["more"]) == (leases[:2], True)
        rest = await document(store, "GET", f"/leases?limit=3&after={leases[1]}")
        assert ([each["id"] for each in rest["leases"]], rest["more"]) == (leases[2:], False)

    run(scenario)


REFUSED = [
    ("POST", "/leases", b"", 400, "invalid-lease"),
    ("POST", "/leases", b"{}", 400, "invalid-lease"),
    ("POST", "/leases", b'{"ttl_s": 0}', 400, "invalid-lease"),
    ("POST", "/leases", b'{"ttl_s": 1e300}', 400, "invalid-lease"),
    ("POST", "/leases", b'{"ttl_s": "5"}', 400, "invalid-lease"),
    ("POST", "/leases", b'{"ttl_s": 5, "x": 1}', 400, "invalid-lease"),
    ("POST", "/leases?x=1", b'{"ttl_s": 5}', 400, "invalid-query"),
    ("PUT", "/leases", b"", 405, "method-not-allowed"),
    ("PUT", "/leases/1", b"", 405, "method-not-allowed"),
    ("GET", "/leases/1/keepalive", b"", 405, "method-not-allowed"),
    ("POST", "/leases/1/keepalive", b'{"ttl_s": 60}', 400, "invalid-lease"),
    ("GET", "/leases/x", b"", 404, "no-such-resource"),
    ("GET", "/leases/0", b"", 404, "no-such-resource"),
    ("GET", "/leases/%31", b"", 404, "no-such-resource"),
    ("GET", "/leases/" + 5000 * "9", b"", 404, "no-such-resource"),
    ("POST", "/leases/1/x", b"", 404, "no-such-resource"),
    ("GET", "/leases/1?x=1", b"", 400, "invalid-query"),
    ("GET", "/leases?limit=0", b"", 400, "invalid-query"),
    ("PUT", "/kv/a?lease=9", b"v", 404, "no-such-lease"),
    ("PUT", "/kv/a?lease=0", b"v", 400, "invalid-query"),
    ("PUT", "/kv/a?ttl_s=x", b"v", 400, "invalid-query"),
    ("PUT", "/kv/a?ttl_s=nan", b"v", 400, "invalid-query"),
    ("PUT", "/kv/a?ttl_s=5&lease=1", b"v", 400, "invalid-query"),
    ("DELETE", "/kv/a?lease=1", b"", 400, "invalid-query"),
    ("POST", "/txn", b'{"then": [{"put": {"key": "a", "value": "v", "lease": 9}}]}', 404, "no-such-lease"),
    ("POST", "/txn", b'{"then": [{"put": {"key": "a", "value": "v", "lease": 0}}]}', 400, "invalid-transaction"),
    ("POST", "/txn", b'{"then": [{"put": {"key": "\\u0000", "value": "v"}}]}', 400, "invalid-transaction"),
]


def test_what_cannot_be_is_refused_and_nothing_is_done(subtests: pytest.Subtests) -> None:
    async def scenario(store: Store) -> None:
        for method, target, body, status, kind in REFUSED:
            with subtests.test(method=method, target=target[:40], body=body):
                reply = await store.call(method, target, body)
                assert (reply.status, reply.problem()["type"]) == (status, f"urn:kvstore:problem:{kind}")
                assert store.replica.machine.revision == 0

    run(scenario)


def test_a_lease_that_is_full_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "MAX_ATTACHED", 1)

    async def scenario(store: Store) -> None:
        lease = await grant(store)
        assert (await store.call("PUT", f"/kv/a?lease={lease}", b"v")).status == 201
        assert (await store.call("PUT", f"/kv/b?lease={lease}", b"v")).problem()["type"].endswith("lease-full")

    run(scenario)


@pytest.mark.parametrize("number", ["0" * 18 + "1" + "9" * 30, "0" * 18 + "1" + "9" * 5000, "9" * 30, "0", "1x", "%31"])
def test_what_is_no_number_of_a_lease_reaches_no_replica(number: str) -> None:
    """A number of more than 64 bits would end the replica that packs it."""

    async def scenario(store: Store) -> None:
        for method, target in (("GET", ""), ("DELETE", ""), ("POST", "/keepalive")):
            reply = await store.call(method, f"/leases/{number}{target}")
            assert reply.problem()["type"] == "urn:kvstore:problem:no-such-resource"
        assert store.replica.arrived.empty()

    run(scenario)
