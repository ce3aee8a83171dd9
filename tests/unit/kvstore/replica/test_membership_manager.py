"""What a leader does for the members without being asked, and that nobody else does it."""

from msgspec.structs import replace

from kvstore.api.commands import NotReconfigured, Put, Reconfigure, Reconfigured
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import (
    Member,
    MemberRole,
    Membership,
    MembershipVersion,
    displaced,
    enrolled,
    newcomer,
)
from kvstore.replica.membership_manager import CHECK_INTERVAL_MS
from paxos.configuration import ALPHA
from paxos.messages import Accept, Chosen, Heartbeat, HeartbeatAck
from paxos.replica import Replica
from paxos.role import Role
from tests.unit.kvstore.memberships import genesis
from tests.unit.kvstore.replica.host import B1, NodeHost, value

VOTER, LEARNER, WITNESS = MemberRole.VOTER, MemberRole.LEARNER, MemberRole.WITNESS
N1, N2, N3 = (Member(f"n{number}", "", VOTER, number) for number in (1, 2, 3))
THREE = Membership(7, (N1, N2, N3))
FOUNDERS = genesis(("n1", "n2", "n3"))[0].membership
ALL = {"n1": 1, "n2": 2, "n3": 3}


# A place for those whose data was damaged


def test_rule_28_whoever_lost_its_data_is_given_a_place_to_begin_anew_with_other_data() -> None:
    membership = displaced(THREE, {"n3": 3})
    assert membership == Membership(8, (N1, N2, newcomer("n3", "", VOTER)))
    assert membership.configuration.voters == ("n1", "n2")
    assert membership.configuration.unverified == ("n3",)


def test_rule_28_a_replacement_request_for_data_that_is_not_that_of_the_member_changes_nothing() -> None:
    """It has other data by now, or was never seen: what was lost is not what votes."""
    assert displaced(THREE, {"n3": 2}) is None
    assert displaced(THREE, {"n3": 0}) is None
    assert displaced(Membership(7, (N1, N2, replace(N3, incarnation=0))), {"n3": 3}) is None
    assert displaced(Membership(7, (N1, N2, replace(N3, incarnation=0))), {"n3": 0}) is None
    assert displaced(THREE, {"n9": 9}) is None
    assert displaced(THREE, {}) is None


def test_one_place_at_a_time() -> None:
    membership = displaced(THREE, {"n2": 2, "n3": 3})
    assert membership is not None
    assert [member.incarnation for member in sorted(membership.members, key=lambda one: one.name)] == [1, 0, 3]


def test_it_comes_back_as_what_it_was_or_was_to_become() -> None:
    joining = replace(newcomer("n4", "h:1", WITNESS), incarnation=4)
    learner = Member("l1", "h:2", LEARNER, 5)
    membership = THREE.changed(joining, learner, Member("w1", "h:3", WITNESS, 6))
    for name, incarnation, becomes in (("n4", 4, WITNESS), ("l1", 5, LEARNER), ("w1", 6, WITNESS)):
        after = displaced(membership, {name: incarnation})
        assert after is not None
        member = after.get(name)
        assert member is not None
        assert (member.purpose, member.role, member.incarnation) == (becomes, LEARNER, 0)


def test_only_data_that_nobody_had_seen_is_enrolled() -> None:
    assert enrolled(THREE, {"n1": 9, "n2": 9, "n9": 9}) is None
    unseen = THREE.changed(newcomer("n4", "h:1", VOTER), newcomer("n5", "h:2", VOTER))
    membership = enrolled(unseen, {"n4": 4, "n5": 5})
    assert membership is not None
    assert [member.incarnation for member in membership.members] == [1, 2, 3, 4, 5]
    assert membership.version == unseen.version + 1


# On a node


class Steward(NodeHost):
    """A leader, whose peers have proved themselves; n2 answers everything."""

    def __init__(self, proved: dict[str, int] | None = None) -> None:
        super().__init__()
        self.proposed: list[Membership] = []
        write = self.node.write

        def listen(command: object, reply: object) -> None:
            if isinstance(command, Reconfigure):
                self.proposed.append(command.membership)
            write(command, reply)  # type: ignore[arg-type]

        self.node.write = listen  # type: ignore[method-assign]
        self.lead()
        self.node.incarnations = ALL if proved is None else proved

    def carry_on(self, times: int = 30) -> None:
        """Some rounds of heartbeats, the changes that become due, and what they take to be in force."""
        for _ in range(times):
            self.ring()
            self.settle()
            assert self.node.replica.role is Role.LEADER

    @property
    def version(self) -> int:
        return self.node.membership.version


def test_a_leader_enrols_the_data_of_its_peers_in_one_change_and_then_has_nothing_to_do() -> None:
    host = Steward()
    host.carry_on()
    assert host.proposed == [FOUNDERS.changed(*[replace(one, incarnation=ALL[one.name]) for one in FOUNDERS.members])]
    assert (host.version, host.node.view.pending) == (1, False)


def test_a_follower_changes_nothing() -> None:
    host = NodeHost()
    host.follow()
    host.node.incarnations, host.node.replacement_requests = ALL, {"n3": 3}
    for nonce in range(2, 20):
        host.later(CHECK_INTERVAL_MS)
        host.receive("n2", Heartbeat(B1, nonce, 0))
        assert {type(one.message) for one in host.step()} <= {HeartbeatAck}
    assert host.node.waiting == 0


def test_a_leader_looks_after_one_thing_after_the_other_each_once_the_last_is_in_force() -> None:
    """n3 lost its data; with other data it is enrolled, and promoted once it has caught up."""
    host = Steward()
    host.carry_on()
    host.node.replacement_requests = {"n3": 3}
    host.node.incarnations = {"n1": 1, "n2": 2}
    host.carry_on()
    assert host.version == 2
    assert host.node.membership.get("n3") == newcomer("n3", "", VOTER)
    host.node.incarnations = {**ALL, "n3": 33}
    host.carry_on()
    assert host.version == 3
    assert host.node.membership.get("n3") == replace(newcomer("n3", "", VOTER), incarnation=33)
    ballot = host.node.replica.leader_ballot
    assert ballot is not None
    host.receive("n3", HeartbeatAck(ballot, 1, granted=True, chosen=host.node.replica.chosen, votes=0))
    host.carry_on()
    assert host.version == 4
    assert host.node.membership.voters == ("n1", "n2", "n3")
    assert [membership.version for membership in host.proposed] == [1, 2, 3, 4]
    before, newest = host.node.machine.memberships
    assert newest.first >= before.first + ALPHA


def test_rule_27_whoever_lags_is_not_promoted_before_it_has_caught_up() -> None:
    host = Steward()
    host.carry_on()
    host.node.replacement_requests = {"n3": 3}
    host.carry_on()
    host.node.incarnations = {**ALL, "n3": 33}
    host.carry_on()
    joining = replace(newcomer("n3", "", VOTER), incarnation=33)
    assert host.node.membership.get("n3") == joining
    ballot, behind = host.node.replica.leader_ballot, host.node.replica.chosen - ALPHA - 1
    assert ballot is not None
    host.receive("n3", HeartbeatAck(ballot, 1, granted=False, chosen=behind, votes=0))
    host.carry_on()
    assert host.node.membership.get("n3") == joining
    host.receive("n3", HeartbeatAck(ballot, 1, granted=False, chosen=behind + 1, votes=0))
    host.carry_on()
    assert host.node.membership.get("n3") == Member("n3", "", VOTER, 33)


def test_a_change_that_was_not_made_is_seen_to_again() -> None:
    """Somebody else was first: what is still to be done is made from the members as they are then."""
    host = Steward({})
    first = host.write(Reconfigure(FOUNDERS.changed(Member("l1", "h:1", LEARNER, 9))))
    host.node.incarnations = ALL
    host.later(CHECK_INTERVAL_MS)
    host.settle()
    assert isinstance(first[0], Reconfigured)
    host.carry_on()
    assert host.node.membership.version == 2
    assert {member.name: member.incarnation for member in host.node.membership.members} == {**ALL, "l1": 9}
    assert len(host.proposed) == 3


def test_a_change_whose_fate_is_unknown_is_looked_after_again() -> None:
    host = Steward({})
    steward = host.node._membership_manager
    memberships = [MembershipVersion(1, FOUNDERS)]

    def due(now: int) -> Membership | None:
        return steward.due(memberships, ALL, {}, host.node.replica, host.now + now * 1_000_000)

    assert due(2 * CHECK_INTERVAL_MS) is not None
    assert due(4 * CHECK_INTERVAL_MS) is None
    for answer in (Refused(Reason.TIMEOUT, Outcome.UNKNOWN), NotReconfigured("no"), Reconfigured(FOUNDERS, 1)):
        steward.answered(answer)
        assert due(6 * CHECK_INTERVAL_MS) is not None
        steward._next_check = 0


def test_rule_27_a_change_is_told_to_the_protocol_once_and_in_the_step_that_applies_it() -> None:
    told: list[int] = []
    reconfigure = Replica.reconfigure
    host = NodeHost()
    host.follow()

    def listen(replica: Replica, version: object, now: int) -> None:
        told.append(version.first)  # type: ignore[attr-defined]
        reconfigure(replica, version, now)  # type: ignore[arg-type]

    Replica.reconfigure = listen  # type: ignore[method-assign, assignment]
    try:
        change = value(Reconfigure(FOUNDERS.without("n3")))
        values = [value(Put(b"k", b"v"), sequence=9), change, change, value(Put(b"k", b"w"), sequence=10)]
        host.receive("n2", *[Accept(B1, slot, each, 0) for slot, each in enumerate(values, 1)], Chosen(B1, 4))
        host.step()
        assert told == [2 + ALPHA]
        host.receive("n2", Heartbeat(B1, 2, 4))
        host.step()
    finally:
        Replica.reconfigure = reconfigure  # type: ignore[method-assign]
    assert told == [2 + ALPHA]
    membership = host.node.replica.configurations
    assert (membership.at(1 + ALPHA).voters, membership.at(2 + ALPHA).voters) == (("n1", "n2", "n3"), ("n1", "n2"))


def test_rule_27_a_restart_knows_the_change_that_is_not_in_force_and_the_one_before() -> None:
    host = NodeHost()
    host.follow()
    change = value(Reconfigure(FOUNDERS.without("n3")))
    host.receive("n2", Accept(B1, 1, change, 0), Chosen(B1, 1))
    host.step()
    host.sync()
    again = NodeHost(host.storage.reopen())
    assert again.node.view.pending
    assert set(again.node.view.neighbours) == {"n2", "n3"}
    configurations = again.node.replica.configurations
    assert [membership.voters for membership in configurations.since(2)] == [("n1", "n2", "n3"), ("n1", "n2")]
