"""Which changes of the members are made, and what a leader changes without being asked."""

from random import Random

import pytest
from msgspec.structs import replace

from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import (
    Member,
    MemberRole,
    Membership,
    MembershipVersion,
    configurations_of,
    in_force_from,
    newcomer,
    refusal,
)
from kvstore.replica.membership_manager import CHECK_INTERVAL_MS, MembershipManager
from paxos.configuration import ALPHA
from paxos.options import Options
from paxos.replica import Replica
from paxos.types import MS, ZERO
from tests.unit.kvstore.memberships import genesis

VOTER, WITNESS, LEARNER = MemberRole.VOTER, MemberRole.WITNESS, MemberRole.LEARNER
THREE = Membership(7, tuple(Member(f"n{number}", "", incarnation=number) for number in (1, 2, 3)))
EPOCHS = [MembershipVersion(40, THREE)]
N3 = THREE.members[2]


def test_a_change_is_made_from_the_present_members_once_they_are_in_force() -> None:
    change = THREE.changed(newcomer("n4", "h:1", VOTER))
    assert refusal(EPOCHS, change, 40) is None
    assert "not in force yet" in str(refusal(EPOCHS, change, 39))
    for version in (0, 6, 7, 9):
        assert "is at version 7" in str(refusal(EPOCHS, replace(change, version=version), 40))
    assert "does not know the membership" in str(refusal([], change, 40))
    assert in_force_from(40) == 40 + ALPHA


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (THREE.without("n3"), None),
        (THREE.changed(replace(N3, role=WITNESS)), None),
        (THREE.changed(replace(N3, role=LEARNER)), None),
        (THREE.changed(newcomer("n3", "", VOTER)), None),
        (THREE.changed(Member("n4", "h:1")), None),
        (THREE.changed(Member("n4", "h:1"), Member("n5", "h:2")), "one voter at a time"),
        (THREE.without("n3").changed(Member("n4", "h:1")), "is at version 7"),
        (replace(THREE.without("n3").changed(Member("n4", "h:1")), version=8), "one voter at a time"),
        (THREE.changed(replace(N3, incarnation=33)), "replace the member"),
        (THREE.changed(N3, N3), "two members have one name"),
    ],
)
def test_what_would_let_two_majorities_miss_each_other_is_refused(change: Membership, why: str | None) -> None:
    said = refusal(EPOCHS, change, 40)
    assert said is None if why is None else why in str(said)


def test_the_last_who_can_lead_and_one_of_two_who_decide_are_needed() -> None:
    two = Membership(1, (Member("n1", "", incarnation=1), Member("n2", "", incarnation=2)))
    assert refusal([MembershipVersion(1, two)], two.without("n2"), 1) is None
    demoted = replace(two.members[1], role=LEARNER)
    assert refusal([MembershipVersion(1, two)], two.changed(demoted), 1) is None
    assert "add a voter first" in str(refusal([MembershipVersion(1, two)], two.changed(newcomer("n2", "", VOTER)), 1))
    one = Membership(1, (Member("n1", ""), Member("w1", "", WITNESS)))
    assert "may lead" in str(refusal([MembershipVersion(1, one)], one.without("n1"), 1))


def test_the_protocol_is_told_who_votes_who_learns_and_who_is_not_heard() -> None:
    membership = THREE.changed(Member("w1", "", WITNESS, 4), Member("l1", "", LEARNER, 5), newcomer("n4", "h:1", VOTER))
    (version,) = configurations_of([MembershipVersion(40, membership)])
    assert version.first == 40
    assert version.configuration.voters == ("n1", "n2", "n3", "w1")
    assert version.configuration.learners == ("l1", "n4")
    assert (version.configuration.witnesses, version.configuration.unverified) == (("w1",), ("n4",))
    assert configurations_of([])[0].configuration.members == ()
    assert configurations_of(genesis(["n2", "n1"]))[0].configuration.voters == ("n1", "n2")


class Leading(Replica):
    """A replica of which the test says how far it and the others are."""

    def __init__(self, chosen: int, others: dict[str, int]) -> None:
        memberships = configurations_of(EPOCHS)
        super().__init__(
            "n1", memberships, Options(), Random(1), 0, promised=ZERO, chosen=chosen, tail=[], restarted=False
        )
        self.others = others

    def chosen_by(self, member: str) -> int:
        return self.others.get(member, 0)


def due(
    membership: Membership, proved: dict[str, int], chosen: int = 100, others: dict[str, int] | None = None
) -> Membership | None:
    replica = Leading(chosen, others or {})
    return MembershipManager().due([MembershipVersion(40, membership)], proved, {}, replica, CHECK_INTERVAL_MS * MS)


def test_data_that_nobody_had_seen_is_enrolled() -> None:
    unseen = THREE.changed(replace(N3, incarnation=0))
    assert due(unseen, {"n1": 1, "n2": 2}) is None
    enrolled = due(unseen, {"n1": 1, "n3": 33, "n9": 9})
    assert enrolled is not None
    assert enrolled.get("n3") == replace(N3, incarnation=33)
    assert enrolled.version == unseen.version + 1


@pytest.mark.parametrize("role", [VOTER, WITNESS])
def test_whoever_joins_becomes_what_it_shall_once_it_has_caught_up_and_is_there(role: MemberRole) -> None:
    joining = THREE.changed(replace(newcomer("n4", "h:1", role), incarnation=4))
    here, there = {"n4": 4}, {"n4": 100 - ALPHA}
    assert due(joining, here, others={"n4": 99 - ALPHA}) is None
    assert due(joining, {}, others=there) is None
    assert due(joining, {"n4": 5}, others=there) is None
    promoted = due(joining, here, others=there)
    assert promoted is not None
    assert promoted.get("n4") == Member("n4", "h:1", role, 4, becomes=role)


def test_a_learner_that_does_not_join_stays_one() -> None:
    assert due(THREE.changed(Member("l1", "h:1", LEARNER, 4)), {"l1": 4}, others={"l1": 100}) is None


def test_the_next_change_waits_until_the_last_one_decides_the_next_slot() -> None:
    """On an idle cluster nothing is chosen after the slots that bring it in force."""
    unseen = THREE.changed(replace(N3, incarnation=0))
    assert due(unseen, {"n3": 3}, chosen=38) is None
    assert due(unseen, {"n3": 3}, chosen=39) is not None


def test_one_change_is_under_way_at_a_time_and_it_is_looked_for_now_and_then() -> None:
    unseen = THREE.changed(replace(N3, incarnation=0))
    memberships, replica = [MembershipVersion(40, unseen)], Leading(100, {})
    steward = MembershipManager()
    assert steward.due(memberships, {"n3": 3}, {}, replica, 0) is not None
    assert steward.due(memberships, {"n3": 3}, {}, replica, CHECK_INTERVAL_MS * MS) is None
    steward.answered(Refused(Reason.TIMEOUT, Outcome.UNKNOWN))
    assert steward.due(memberships, {"n3": 3}, {}, replica, CHECK_INTERVAL_MS * MS - 1) is None
    assert steward.due(memberships, {"n3": 3}, {}, replica, CHECK_INTERVAL_MS * MS) is not None
