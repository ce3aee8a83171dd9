"""`/locks/{name}`: taking, waiting, giving up, and writes that a fence guards."""

import asyncio
import json
from typing import Any

import pytest

from kvstore.api.commands import AcquireLock
from tests.unit.kvstore.server.http.fake import Reply, Store, request, run
from tests.unit.kvstore.server.http.test_leases import grant


async def acquire(store: Store, name: str = "l", **body: Any) -> Reply:
    return await store.call("POST", f"/locks/{name}", json.dumps(body))


async def queue(store: Store) -> tuple[int, int, asyncio.Task[Reply]]:
    """The lease that has the lock, the one that waits for it, and the request that does."""
    one, two = await grant(store), await grant(store)
    await acquire(store, lease=one)
    waiting = asyncio.create_task(acquire(store, lease=two, wait_s=60))
    while len(store.replica.machine.lease_index.locks[b"l"]) < 2:
        await store.replica.done.get()
    return one, two, waiting


def test_a_lock_from_hand_to_hand() -> None:
    async def scenario(store: Store) -> None:
        one, two = await grant(store), await grant(store)
        held = await acquire(store, lease=one, value="me")
        assert (held.status, json.loads(held.body)) == (200, {"name": "l", "lease": one, "fence": 3, "held": True})
        busy = await acquire(store, lease=two)
        assert (busy.status, busy.problem()["holder"]) == (409, {"lease": one, "fence": 3})
        assert store.replica.machine.revision == 3
        waits = await acquire(store, lease=two, wait_s=0.01)
        assert (waits.status, json.loads(waits.body)["held"]) == (202, False)
        shown = json.loads((await store.call("GET", "/locks/l")).body)
        assert shown["holder"] == {"lease": one, "fence": 3, "value": "me"}
        assert [place["lease"] for place in shown["waiting"]] == [two]
        assert (await store.call("DELETE", f"/locks/l?lease={one}")).status == 200
        again = await acquire(store, lease=two)
        assert (again.status, json.loads(again.body)["fence"]) == (200, 4)
        assert (await store.call("DELETE", f"/locks/l?lease={one}")).problem()["type"].endswith("not-held")

    run(scenario)


def test_whoever_waits_has_it_as_soon_as_it_is_given_up() -> None:
    async def scenario(store: Store) -> None:
        one, _, waiting = await queue(store)
        await store.call("DELETE", f"/leases/{one}")
        assert (await waiting).status == 200

    run(scenario)


def test_whoever_waits_hears_when_its_lease_is_over() -> None:
    async def scenario(store: Store) -> None:
        _, two, waiting = await queue(store)
        await store.call("DELETE", f"/leases/{two}")
        assert (await waiting).problem()["type"].endswith("no-such-lease")

    run(scenario)


def test_whoever_waits_hears_when_its_place_is_given_up() -> None:
    async def scenario(store: Store) -> None:
        _, two, waiting = await queue(store)
        await store.call("DELETE", f"/locks/l?lease={two}")
        assert (await waiting).problem()["type"].endswith("not-held")

    run(scenario)


def test_of_a_long_queue_the_first_thousand_are_shown() -> None:
    async def scenario(store: Store) -> None:
        for count, more in ((1001, False), (1, True)):
            for number in range(count):
                store.replica.write(AcquireLock(b"l", 0, 60_000, b"%d" % number, queue=True), lambda _: None)
            shown = json.loads((await store.call("GET", "/locks/l")).body)
            assert (len(shown["waiting"]), shown["more"]) == (1000, more)
            assert shown["holder"]["value"] == "0"

    run(scenario)


def test_what_a_holder_has_to_say_is_short() -> None:
    async def scenario(store: Store) -> None:
        assert (await acquire(store, ttl_s=60, value="v" * 1024)).status == 200
        refused = await acquire(store, "m", ttl_s=60, value="v" * 1025)
        assert (refused.status, refused.problem()["type"]) == (400, "urn:kvstore:problem:invalid-lock")

    run(scenario)


def test_a_lease_of_its_own_is_kept_alive_while_its_client_waits() -> None:
    async def scenario(store: Store) -> None:
        one = await grant(store)
        await acquire(store, lease=one)
        waiting = asyncio.create_task(acquire(store, ttl_s=0.1, wait_s=60))
        while not any(lease.version > 1 for lease in store.replica.machine.lease_index.leases.values()):
            await store.replica.done.get()
        await store.call("DELETE", f"/locks/l?lease={one}")
        assert json.loads((await waiting).body)["held"] is True

    run(scenario)


def test_a_client_that_goes_away_gives_its_place_up() -> None:
    async def scenario(store: Store) -> None:
        one = await grant(store)
        await acquire(store, lease=one)
        async with await store.wire() as wire:
            wire.send(request("POST", "/locks/l", body=b'{"ttl_s": 0.1, "wait_s": 60}'))
            while len(store.replica.machine.lease_index.locks[b"l"]) < 2:
                await store.replica.done.get()
        while len(store.replica.machine.lease_index.locks[b"l"]) > 1:
            await store.replica.done.get()
        assert list(store.replica.machine.lease_index.leases) == [one]

    run(scenario)


def test_a_shutdown_ends_the_waiting() -> None:
    async def scenario(store: Store) -> None:
        _, _, waiting = await queue(store)
        store.replica.stopping = True
        await store.frontend.stop(5000)
        assert (await waiting).status == 202

    run(scenario)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_that_a_fence_guards(method: str) -> None:
    async def scenario(store: Store) -> None:
        one, two = await grant(store), await grant(store)
        await store.call("PUT", "/kv/a", b"v")
        fence = json.loads((await acquire(store, lease=one)).body)["fence"]
        await acquire(store, lease=two, wait_s=0.01)
        assert (await store.call("PUT", f"/kv/a?lock=l&fence={fence}", b"1")).status == 200
        await store.call("DELETE", f"/leases/{one}")
        refused = await store.call(method, f"/kv/a?lock=l&fence={fence}", b"2")
        assert (refused.status, refused.problem()["fence"]) == (412, fence + 1)
        wrong = await store.call(method, f"/kv/a?lock=l&fence={fence + 1}", b"3", headers={"If-Match": '"1"'})
        assert (wrong.status, "fence" in wrong.problem()) == (412, False)
        await store.call("DELETE", f"/leases/{two}")
        nobody = await store.call(method, f"/kv/a?lock=l&fence={fence + 1}", b"4")
        assert (nobody.status, nobody.problem()["fence"]) == (412, 0)
        assert store.replica.records[b"a"].value == b"1"

    run(scenario)


def test_a_transaction_that_a_fence_guards() -> None:
    async def scenario(store: Store) -> None:
        lease = await grant(store)
        fence = json.loads((await acquire(store, name="%ff", lease=lease)).body)["fence"]
        for given, succeeded in ((fence, True), (fence + 1, False)):
            body = {"compare": [{"lock_base64": "/w==", "fence": given}], "then": [{"put": {"key": "a", "value": ""}}]}
            reply = await store.call("POST", "/txn", json.dumps(body))
            assert json.loads(reply.body)["succeeded"] is succeeded

    run(scenario)


@pytest.mark.parametrize(
    ("target", "body", "says"),
    [
        ("/locks/l", b"{}", "one lease"),
        ("/locks/l", b'{"lease": -1}', "$.lease"),
        ("/locks/l", b'{"ttl_s": 5, "wait_s": 61}', "$.wait_s"),
        ("/locks/l", b'{"ttl_s": 5, "value": "a", "value_base64": "YQ=="}', "exclude each other"),
        ("/locks/l", b'{"ttl_s": 5, "value_base64": "?"}', "base64"),
        ("/locks/l", b"nonsense", "malformed"),
        ("/locks/l?x=1", b'{"ttl_s": 5}', "unknown"),
        ("/locks/", b'{"ttl_s": 5}', "1 to 1024"),
        ("/locks/%00", b'{"ttl_s": 5}', "byte 0"),
        ("/locks/l", b'{"lease":1,"ttl_s":null}', "got `null` - at `$.ttl_s`"),
    ],
)
def test_a_request_that_cannot_be_is_refused(target: str, body: bytes, says: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("POST", target, body)
        assert reply.status == 400
        assert says in reply.problem()["detail"]
        assert store.replica.machine.revision == 0

    run(scenario)


@pytest.mark.parametrize(
    ("compare", "says"),
    [
        ({"lock": "l"}, "lock and fence"),
        ({"fence": 1}, "lock and fence"),
        ({"lock": "l", "fence": 1, "key": "a"}, "another compare"),
        ({"lock": "", "fence": 1}, "1 to 1024"),
    ],
)
def test_a_compare_of_a_fence_that_cannot_be_is_refused(compare: Any, says: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("POST", "/txn", json.dumps({"compare": [compare]}))
        assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:invalid-transaction")
        assert says in reply.problem()["detail"]

    run(scenario)


def test_other_methods_are_refused() -> None:
    async def scenario(store: Store) -> None:
        assert (await store.call("PUT", "/locks/l", b"")).status == 405
        missing = await store.call("DELETE", "/locks/l")
        assert (missing.status, missing.problem()["type"]) == (400, "urn:kvstore:problem:invalid-lock")

    run(scenario)
