import json

import msgspec
import pytest

from kvstore.api.status import Standing
from tests.unit.kvstore.server.http.fake import STATUS, Store, request, run

PAGES = ("/", "/status", "/livez", "/readyz", "/metrics")


def test_status_is_the_replicas_as_json() -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", "/status")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert json.loads(reply.body) == msgspec.to_builtins(STATUS)

    run(scenario)


def test_livez_and_readyz_while_all_is_well() -> None:
    async def scenario(store: Store) -> None:
        for page in ("/livez", "/readyz"):
            reply = await store.call("GET", page)
            assert (reply.status, reply.body) == (200, b"ok\n")

    run(scenario)


@pytest.mark.parametrize(("leader", "why"), [(None, "no leader"), ("n2", "caught up with the leader n2")])
def test_readyz_says_why_not(leader: str | None, why: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.present = msgspec.structs.replace(STATUS, ready=False, leader=leader)
        reply = await store.call("GET", "/readyz")
        assert reply.status == 503
        assert why in reply.problem()["detail"]
        assert reply.headers["retry-after"] == "1"
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (Standing.REMOVED, "n1 was removed"),
        (Standing.REFUSED, "do not know it as a member"),
        (Standing.WAITING, "has not learned the membership yet"),
        (Standing.DATA_LOST, "it is known to n2, n3 with other data: n1 has lost its data"),
    ],
)
def test_a_replica_that_is_no_member_is_not_ready_and_says_so(standing: Standing, why: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.present = msgspec.structs.replace(STATUS, standing=standing, waits_for=["n2", "n3"])
        reply = await store.call("GET", "/readyz")
        assert reply.status == 503
        assert why in reply.problem()["detail"]
        assert "POST /members" in reply.problem()["detail"]

    run(scenario)


def test_a_replica_that_waits_for_founding_members_names_them_and_the_setting_that_helps() -> None:
    async def scenario(store: Store) -> None:
        store.replica.present = msgspec.structs.replace(STATUS, standing=Standing.FOUNDING, waits_for=["n2", "n3"])
        reply = await store.call("GET", "/readyz")
        assert reply.status == 503
        assert "and waits for n2, n3" in reply.problem()["detail"]
        assert "bootstrap_without" in reply.problem()["detail"]

    run(scenario)


@pytest.mark.parametrize(("mark", "own"), [("5:a", "n1 was restored as 5:a"), ("", "n1 was not restored")])
def test_rule_31_a_replica_that_was_restored_otherwise_names_the_others_and_what_to_do(mark: str, own: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.present = msgspec.structs.replace(
            STATUS, standing=Standing.RESTORE_MISMATCH, waits_for=["n2", "n3"], restored=mark
        )
        reply = await store.call("GET", "/readyz")
        assert reply.status == 503
        assert reply.problem()["detail"].startswith(f"{own}. Other founding members begin with another state")
        assert "found no cluster with it: n2, n3." in reply.problem()["detail"]
        assert "restore it from the backup of the others with their --above" in reply.problem()["detail"]

    run(scenario)


def test_a_stopping_replica_is_alive_but_not_ready() -> None:
    async def scenario(store: Store) -> None:
        store.replica.stopping = True
        reply = await store.call("GET", "/readyz")
        assert reply.status == 503
        assert reply.problem()["type"] == "urn:kvstore:problem:stopping"
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


def test_the_root_tells_a_person_what_there_is() -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", "/")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/plain")
        for page in ("/kv/{key}", *PAGES[1:]):
            assert page in reply.body.decode()

    run(scenario)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_read_only_and_take_no_parameters(page: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await wire.ask(request("HEAD", page))).status == 200
            refused = await wire.ask(request("PUT", page))
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
            strange = await wire.ask(request("GET", f"{page}?x=1"))
            assert strange.status == 400
            assert "'x'" in strange.problem()["detail"]

    run(scenario)


def test_a_page_that_fails_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(store: Store) -> None:
        del store.replica.present
        assert (await store.call("GET", "/status")).problem()["status"] == 500

    run(scenario)
    assert caplog.records[0].exc_info is not None
    caplog.clear()
