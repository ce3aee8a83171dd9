"""`/members`: what each change makes of the members, and what is refused, with which advice."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import Member, MemberRole
from tests.unit.kvstore.server.http.fake import Store, request, run

LEARNER = Member("n4", "h:9004", MemberRole.LEARNER, incarnation=4)


def body(**fields: str) -> bytes:
    return json.dumps(fields).encode()


def test_the_members_are_listed_with_what_is_known_of_them() -> None:
    async def scenario(store: Store) -> None:
        store.replica.connected = {"n1", "n2"}
        reply = await store.call("GET", "/members")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        document = json.loads(reply.body)
        assert (document["version"], document["in_force"], document["leader"]) == (3, True, "n2")
        assert [each["name"] for each in document["members"]] == ["n1", "n2", "n3"]
        expected = {
            "name": "n3",
            "address": "127.0.0.1:9003",
            "connected": False,
            "heard_ms_ago": None,
            "role": "voter",
            "joining": False,
            "becomes": None,
            "incarnation": "3",
            "chosen": None,
            "lag": None,
        }
        assert expected.items() <= document["members"][2].items()
        async with await store.wire() as wire:
            assert (await wire.ask(request("HEAD", "/members"))).status == 200

    run(scenario)


@pytest.mark.parametrize("role", ["voter", "witness"])
def test_whoever_shall_vote_is_added_as_a_learner_that_becomes_it(role: str) -> None:
    async def scenario(store: Store) -> None:
        added = body(name="n4", address="h:9004", role=role)
        reply = await store.call("POST", "/members", added)
        assert (reply.status, json.loads(reply.body)["version"]) == (201, 4)
        expected = Member("n4", "h:9004", MemberRole.LEARNER, joining=True, becomes=MemberRole(role))
        assert store.replica.membership.get("n4") == expected
        again = await store.call("POST", "/members", added)
        assert (again.status, store.replica.membership.version) == (200, 4)

    run(scenario)


def test_a_learner_is_added_as_what_it_stays_and_can_be_promoted() -> None:
    async def scenario(store: Store) -> None:
        await store.call("POST", "/members", body(name="n4", address="[::1]:9004", role="learner"))
        assert store.replica.membership.get("n4") == Member("n4", "[::1]:9004", MemberRole.LEARNER)
        refused = await store.call("POST", "/members/n4/promote", b'{"address": "10.0.0.4:9001"}')
        assert (refused.status, refused.problem()["type"]) == (400, "urn:kvstore:problem:invalid-member")
        assert "Send an empty body." in refused.problem()["detail"]
        assert (await store.call("POST", "/members/n4/promote", b"{}")).status == 200
        promoted = store.replica.membership.get("n4")
        assert promoted is not None
        assert (promoted.role, promoted.joining, promoted.becomes) == (MemberRole.LEARNER, True, MemberRole.VOTER)
        assert (await store.call("POST", "/members/n4/promote")).status == 200
        assert store.replica.membership.version == 5

    run(scenario)


def test_a_role_that_is_not_named_is_that_of_a_voter() -> None:
    async def scenario(store: Store) -> None:
        await store.call("POST", "/members", body(name="n4", address="h:9004"))
        added = store.replica.membership.get("n4")
        assert added is not None
        assert added.purpose is MemberRole.VOTER

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "The body is invalid"),
        (b'{"name": "n4"}', "address"),
        (body(name="n4", address="h:1", roll="voter"), "roll"),
        (body(name="n4", address="h:1", role="boss"), "boss"),
        (body(name="N4", address="h:1"), "'N4' is not a name"),
        (body(name="n4", address="h"), "'h' is not an address"),
        (body(name="n4", address="h:99999"), "is not an address"),
        (body(name="n4", address="0.0.0.0:9004"), "no address to connect to"),
        (body(name="n4", address="h" * 300 + ":9004"), "too long"),
        (b"\xff", "The body is invalid"),
    ],
)
def test_what_describes_no_member_is_refused(sent: bytes, why: str) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("POST", "/members", sent)
        assert reply.status == 400
        assert reply.problem()["type"].endswith(":invalid-member")
        assert why in reply.problem()["detail"]
        assert store.replica.membership.version == 3

    run(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "n3", "address": "127.0.0.1:9004"},
        {"name": "n3", "address": "127.0.0.1:9003", "role": "witness"},
        {"name": "n4", "address": "127.0.0.1:9003"},
    ],
)
def test_a_name_or_address_of_another_is_refused(fields: dict[str, str]) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("POST", "/members", body(**fields))
        assert (reply.status, reply.problem()["type"]) == (409, "urn:kvstore:problem:member-exists")

    run(scenario)


def test_a_member_is_removed_and_then_it_is_none() -> None:
    async def scenario(store: Store) -> None:
        assert (await store.call("DELETE", "/members/n3")).status == 200
        assert [each.name for each in store.replica.membership.members] == ["n1", "n2"]
        again = await store.call("DELETE", "/members/n3")
        assert (again.status, again.problem()["type"]) == (404, "urn:kvstore:problem:no-such-member")
        assert "n1, n2" in again.problem()["detail"]

    run(scenario)


@pytest.mark.parametrize(("connected", "refused"), [({"n1", "n2"}, False), ({"n1", "n3"}, True), ({"n1"}, True)])
def test_what_leaves_no_majority_connected_is_refused_unless_it_is_forced(connected: set[str], refused: bool) -> None:
    async def scenario(store: Store) -> None:
        store.replica.connected = connected
        reply = await store.call("DELETE", "/members/n3?force=false")
        assert (reply.status == 409) == refused
        if refused:
            assert reply.problem()["type"].endswith(":unsafe-change")
            assert "unreachable: n2" in reply.problem()["detail"]
            assert (await store.call("DELETE", "/members/n3?force=true")).status == 200

    run(scenario)


def test_one_that_is_replaced_is_not_heard_while_it_is_decided() -> None:
    """Of four voters it takes the three others."""

    async def scenario(store: Store) -> None:
        replica = store.replica
        replica.membership = replica.membership.changed(Member("n4", "h:9004", incarnation=4))
        replica.connected = {"n1", "n2"}
        assert (await store.call("POST", "/members/n4/replace")).problem()["type"].endswith(":unsafe-change")
        replica.connected = {"n1", "n2", "n3"}
        assert (await store.call("POST", "/members/n4/replace")).status == 200

    run(scenario)


@pytest.mark.parametrize("role", MemberRole)
def test_a_replaced_member_begins_anew_and_becomes_what_it_was(role: MemberRole) -> None:
    async def scenario(store: Store) -> None:
        replica = store.replica
        replica.membership = replica.membership.changed(Member("n4", "h:9004", role, incarnation=4))
        version = replica.membership.version
        for _ in range(2):
            assert (await store.call("POST", "/members/n4/replace", body(address="h:9005"))).status == 200
        member = replica.membership.get("n4")
        assert member is not None
        assert (member.purpose, member.role, member.incarnation) == (role, MemberRole.LEARNER, 0)
        assert (member.address, replica.membership.version) == ("h:9005", version + 1)

    run(scenario)


def test_a_founding_member_without_a_recorded_address_is_replaced() -> None:
    async def scenario(store: Store) -> None:
        replica = store.replica
        replica.membership = replica.membership.changed(Member("n3", "", incarnation=3))
        replica.connected = {"n1", "n2"}
        assert (await store.call("POST", "/members/n3/replace")).status == 200
        begun = replica.membership.get("n3")
        assert begun is not None
        assert (begun.address, begun.joining) == ("", True)

    run(scenario)


def test_who_is_connected_is_not_replaced_but_to_repeat_it_while_the_new_one_joins_is_no_error() -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("POST", "/members/n3/replace")
        assert (reply.status, reply.problem()["type"]) == (409, "urn:kvstore:problem:member-runs")
        assert "Stop it, repeat" in reply.problem()["detail"]
        store.replica.connected = {"n1", "n2"}
        assert (await store.call("POST", "/members/n3/replace")).status == 200
        begun = store.replica.membership.get("n3")
        assert begun is not None
        store.replica.membership = store.replica.membership.changed(replace(begun, incarnation=33))
        store.replica.connected = {"n1", "n2", "n3"}
        assert (await store.call("POST", "/members/n3/replace")).status == 200
        assert store.replica.membership.version == 5

    run(scenario)


def test_the_last_who_can_lead_stays() -> None:
    async def scenario(store: Store) -> None:
        witnesses = [replace(each, role=MemberRole.WITNESS) for each in store.replica.membership.members[1:]]
        store.replica.membership = store.replica.membership.changed(*witnesses)
        reply = await store.call("DELETE", "/members/n1?force=true")
        assert (reply.status, reply.problem()["type"]) == (409, "urn:kvstore:problem:unsafe-change")
        assert "add or promote a voter first" in reply.problem()["detail"]

    run(scenario)


def test_of_two_voters_none_can_be_replaced() -> None:
    async def scenario(store: Store) -> None:
        store.replica.membership = store.replica.membership.without("n2")
        store.replica.connected = {"n1"}
        reply = await store.call("POST", "/members/n3/replace?force=true")
        assert (reply.status, reply.problem()["type"]) == (409, "urn:kvstore:problem:unsafe-change")
        assert "add a voter first" in reply.problem()["detail"]

    run(scenario)


def test_a_witness_is_not_promoted() -> None:
    async def scenario(store: Store) -> None:
        store.replica.membership = store.replica.membership.changed(replace(LEARNER, role=MemberRole.WITNESS))
        reply = await store.call("POST", "/members/n4/promote")
        assert (reply.status, reply.problem()["type"]) == (409, "urn:kvstore:problem:unsafe-change")

    run(scenario)


def test_one_that_follows_no_leader_judges_no_change() -> None:
    """What it knows may be old: the client goes on to the next."""

    async def scenario(store: Store) -> None:
        store.replica.leader = None
        store.replica.connected = {"n1"}
        changes = [("DELETE", "/members/n3"), ("POST", "/members/n1/replace"), ("POST", "/members/n9/promote")]
        for method, target in changes:
            problem = (await store.call(method, target)).problem()
            assert (problem["type"], problem["outcome"]) == ("urn:kvstore:problem:no-leader", "failed")
        assert (await store.call("GET", "/members")).status == 200

    run(scenario)


def test_of_two_changes_at_the_same_time_one_is_told_to_try_again() -> None:
    async def scenario(store: Store) -> None:
        store.replica.meanwhile = store.replica.membership.changed(LEARNER)
        reply = await store.call("POST", "/members", body(name="n5", address="h:9005"))
        assert (reply.status, reply.problem()["type"]) == (409, "urn:kvstore:problem:members-changed")
        assert (reply.problem()["outcome"], reply.headers["retry-after"]) == ("failed", "1")
        assert (await store.call("POST", "/members", body(name="n5", address="h:9005"))).status == 201

    run(scenario)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_change_that_was_not_answered_says_whether_it_may_have_been_made(outcome: Outcome) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = Refused(Reason.TIMEOUT, outcome)
        problem = (await store.call("DELETE", "/members/n3")).problem()
        assert (problem["status"], problem["outcome"]) == (503, outcome)
        assert ("It is safe to repeat it" in problem["detail"]) == (outcome is Outcome.UNKNOWN)

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PUT", "/members", 405),
        ("GET", "/members/n1", 405),
        ("DELETE", "/members/n1/replace", 405),
        ("GET", "/members/n1/promote", 405),
        ("POST", "/members/n9/promote", 404),
        ("POST", "/members/n9/replace", 404),
        ("POST", "/members/n1/demote", 404),
        ("POST", "/members/", 404),
        ("POST", "/members/n1/replace/x", 404),
        ("GET", "/members?x=1", 400),
        ("POST", "/members/n1/promote?force=true", 400),
        ("DELETE", "/members/n1?force=1", 400),
        ("DELETE", "/members/n1?by=force", 400),
    ],
)
def test_what_does_not_exist_there_is_told_with_what_does(method: str, target: str, status: int) -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call(method, target)
        assert reply.status == status
        reply.problem()

    run(scenario)


@pytest.mark.parametrize(("reason", "name"), [(Reason.WITNESS, "witness"), (Reason.REMOVED, "removed")])
def test_one_without_data_names_those_that_have_it(reason: Reason, name: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = Refused(reason, Outcome.FAILED, ["n1", "n2"])
        for method in ("GET", "PUT", "DELETE"):
            reply = await store.call(method, "/kv/k")
            problem: dict[str, Any] = reply.problem()
            assert (problem["status"], problem["type"]) == (503, f"urn:kvstore:problem:{name}")
            assert "serve clients: n1, n2." in problem["detail"]
            assert "retry-after" not in reply.headers

    run(scenario)
