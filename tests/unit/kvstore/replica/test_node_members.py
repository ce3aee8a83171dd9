"""A node that is removed, joins, or is a witness: what it asks its peers for, what it keeps and whom it answers."""

from msgspec.structs import replace

from kvstore.api.commands import Put, PutResult, Reconfigure, Reconfigured
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.membership import Member, MemberRole, Membership, newcomer
from kvstore.api.status import Standing
from kvstore.replica.applier import Applier
from kvstore.replica.snapshot_receive import END
from kvstore.replica.snapshot_send import state_message
from paxos.configuration import ALPHA
from paxos.messages import (
    Accept,
    AnyMessage,
    Chosen,
    Fetch,
    FetchSnapshot,
    Heartbeat,
    Learn,
    PreVote,
    Propose,
    ReadIndex,
    ReadIndexReply,
    ReleaseLease,
)
from paxos.ready import ServeFetch, ServeSnapshot
from paxos.role import Role
from paxos.types import Ballot, pack
from storage.base import StatePage
from tests.unit.kvstore.memberships import genesis
from tests.unit.kvstore.replica.host import B1, QUORUM, STALE, NodeHost, refusal, seen, value

FIRST = genesis(("n1", "n2", "n3"))[0].membership
OTHERS = FIRST.without("n1")
"""The members without the one under test."""


def source(*memberships: Membership) -> Applier:
    """What a peer has applied: one key, then each of these changes as soon as the last is in force."""
    applier = Applier(genesis(("n1", "n2", "n3")))
    slot, sequence = 1, 1
    applier.replay(slot, value(Put(b"k", b"v")))
    for membership in memberships:
        while applier.machine.memberships[-1].first > slot + 1:
            slot += 1
            applier.replay(slot, b"")
        slot, sequence = slot + 1, sequence + 1
        applier.replay(slot, value(Reconfigure(membership), sequence=sequence))
    assert applier.machine.membership == memberships[-1]
    return applier


def asked(host: NodeHost) -> list[AnyMessage]:
    """What n2 is asked for: its state or its log."""
    return [one.message for one in host.step() if isinstance(one.message, FetchSnapshot | Fetch) and one.to == "n2"]


def give_end(host: NodeHost, applier: Applier) -> None:
    host.receive("n2", state_message(END, StatePage([], 0, applier.progress())))


def give_all(host: NodeHost, applier: Applier) -> None:
    host.receive("n2", state_message(0, StatePage(applier.machine.changes, 0, applier.progress())))


def choose(host: NodeHost, *values: bytes) -> None:
    """n2 leads, and has these chosen next."""
    for each in values:
        slot = host.node.replica.chosen + 1
        host.receive("n2", Accept(B1, slot, each, slot - 1), Chosen(B1, slot))
        host.step()
        host.sync()
        assert host.node.applied == slot


def proposed(host: NodeHost) -> bytes:
    """The value with what was just sent to the leader."""
    (propose,) = [one.message for one in host.step() if isinstance(one.message, Propose)]
    return pack(propose.payloads)


def joined(role: MemberRole) -> NodeHost:
    """A node that was added with this role, and was given what it takes."""
    host = NodeHost(joins=True)
    host.follow()
    applier = source(OTHERS, OTHERS.changed(newcomer("n1", "h:1", role)))
    give_end(host, applier)
    if role is not MemberRole.WITNESS:
        host.step()
        give_all(host, applier)
    host.step()
    host.sync()
    assert host.node.applied == applier.applied
    return host


def test_whoever_applies_its_removal_serves_no_current_read_and_no_write() -> None:
    host = NodeHost()
    host.follow()
    waiting = host.write(Put(b"k", b"sent before"))
    choose(host, value(Put(b"k", b"v")), value(Reconfigure(OTHERS), sequence=2))
    assert host.node.view.standing is Standing.REMOVED
    assert refusal(host.write(Put(b"k", b"v"))) == (Reason.REMOVED, Outcome.FAILED)
    assert refusal(host.read(b"k")) == refusal(host.read(b"k", QUORUM)) == (Reason.REMOVED, Outcome.FAILED)
    assert seen(host.read(b"k", STALE)) == [b"v"]
    (refused,) = host.write(Reconfigure(FIRST))
    assert isinstance(refused, Refused)
    assert list(refused.instead) == ["n2", "n3"]
    assert waiting == []


def test_a_leader_that_is_removed_answers_for_it_and_hands_over() -> None:
    host = NodeHost()
    host.lead()
    answers = host.write(Reconfigure(OTHERS))
    sent = host.settle()
    assert answers == [Reconfigured(OTHERS, host.node.machine.memberships[-1].first)]
    assert [message for message in sent if isinstance(message, ReleaseLease)] == [ReleaseLease(sent_ballot(sent), "n2")]
    assert (host.node.replica.role, host.node.view.standing) == (Role.FOLLOWER, Standing.REMOVED)
    host.ring()
    assert [type(message) for message in host.settle()] == [PreVote]  # it asks how far the others are, and no more
    assert host.node.replica.role is Role.FOLLOWER


def sent_ballot(sent: list[AnyMessage]) -> Ballot:
    return next(message.ballot for message in sent if isinstance(message, Accept))


def test_the_links_with_who_leaves_stay_until_it_has_left() -> None:
    host = NodeHost()
    host.follow()
    choose(host, value(Reconfigure(FIRST.without("n3"))))
    assert (host.node.view.pending, set(host.node.view.neighbours)) == (True, {"n2", "n3"})
    choose(host, *[b""] * (ALPHA - 1))
    assert (host.node.view.pending, set(host.node.view.neighbours)) == (False, {"n2"})


def test_a_replica_that_joins_asks_what_it_is_and_then_for_the_state() -> None:
    host = NodeHost(joins=True)
    assert host.node.view.standing is Standing.WAITING
    for consistency in (STALE, QUORUM):
        assert refusal(host.read(b"k", consistency)) == (Reason.JOINING, Outcome.FAILED)
    assert refusal(host.write(Put(b"k", b"v"))) == (Reason.JOINING, Outcome.FAILED)
    host.receive("n2", Heartbeat(B1, 1, 40))
    assert asked(host) == [FetchSnapshot(END)]
    applier = source(OTHERS, OTHERS.changed(newcomer("n1", "h:1", MemberRole.VOTER)))
    give_end(host, applier)
    assert asked(host) == [FetchSnapshot(0)]
    give_all(host, applier)
    host.step()
    host.sync()
    assert (host.node.view.standing, host.node.applied) == (Standing.JOINING, applier.applied)
    assert seen(host.read(b"k", STALE)) == [b"v"]


def test_a_source_that_does_not_know_the_newcomer_yet_is_asked_again() -> None:
    host = NodeHost(joins=True)
    host.receive("n2", Heartbeat(B1, 1, 40))
    assert asked(host) == [FetchSnapshot(END)]
    give_end(host, source(OTHERS))
    assert asked(host) == []
    host.receive("n2", Heartbeat(B1, 2, 40))
    host.later(600)
    host.receive("n2", Heartbeat(B1, 3, 40))
    assert asked(host) == [FetchSnapshot(END)]


def test_whoever_knows_nobody_asks_whom_it_has_a_link_with() -> None:
    """A follower says nothing unasked, and the leader may be one that it was not told of."""
    host = NodeHost(joins=True)
    assert asked(host) == []
    host.node.incarnations = {"n1": 7, "n2": 8}
    host.ring()
    assert asked(host) == [FetchSnapshot(END)]
    membership = OTHERS.changed(newcomer("n1", "h:1", MemberRole.VOTER))
    give_end(host, source(OTHERS, membership))
    assert asked(host) == [FetchSnapshot(0)]
    give_all(host, source(OTHERS, membership))
    host.step()
    host.sync()
    assert host.node.membership == membership
    host.receive("n2", Learn((), 900, 800))
    host.node.incarnations = {"n3": 9}
    host.later(1)
    assert asked(host) == [FetchSnapshot(0)]


def test_a_witness_takes_no_rows_keeps_no_records_and_follows_the_members() -> None:
    host = joined(MemberRole.WITNESS)
    assert host.storage.hard_state.progress.applied == host.node.applied
    change = host.node.membership.changed(Member("l1", "h:2", MemberRole.LEARNER))
    choose(host, *[b""] * (ALPHA - 1))
    choose(host, value(Put(b"a", b"1"), sequence=8), value(Put(b"b", b"1"), Reconfigure(change), sequence=9))
    assert (host.node.machine.records, host.node.machine.revision) == ({}, 0)
    assert host.node.membership == change
    assert host.storage.read_state(0, 1000).changes == []


def test_a_witness_serves_no_client_but_changes_of_the_members() -> None:
    host = joined(MemberRole.WITNESS)
    for consistency in (STALE, QUORUM):
        assert refusal(host.read(b"k", consistency)) == (Reason.WITNESS, Outcome.FAILED)
    assert refusal(host.write(Put(b"k", b"v"))) == (Reason.WITNESS, Outcome.FAILED)
    choose(host, *[b""] * (ALPHA - 1))
    change = host.node.membership.changed(Member("l1", "h:2", MemberRole.LEARNER))
    answers = host.write(Reconfigure(change))
    choose(host, proposed(host))
    assert answers == [Reconfigured(change, host.node.applied + ALPHA)]


def test_a_witness_sends_its_log_and_no_state() -> None:
    host = joined(MemberRole.WITNESS)
    choose(host, value(Put(b"a", b"1"), sequence=8))
    host.receive("n3", FetchSnapshot(0), FetchSnapshot(END), Fetch(host.node.applied))
    host.step()
    assert [type(fetch) for fetch in host.fetches] == [ServeFetch]
    assert not any(isinstance(fetch, ServeSnapshot) for fetch in host.fetches)


def test_a_witness_that_lags_behind_the_cut_needs_only_the_end() -> None:
    host = joined(MemberRole.WITNESS)
    host.receive("n2", Learn((), 900, 800))
    assert asked(host) == [FetchSnapshot(END)]
    memberships = [OTHERS, OTHERS.changed(newcomer("n1", "h:1", MemberRole.WITNESS))]
    later = source(*memberships, memberships[-1].changed(Member("l1", "h:2", MemberRole.LEARNER)))
    while later.applied < 850:
        later.replay(later.applied + 1, b"")
    give_end(host, later)
    host.step()
    host.sync()
    assert (host.node.applied, host.node.machine.records) == (850, {})
    assert host.node.membership.get("l1") is not None


def test_a_witness_is_one_after_a_restart() -> None:
    host = joined(MemberRole.WITNESS)
    choose(host, value(Put(b"a", b"1"), sequence=8), value(Put(b"a", b"2"), sequence=9))
    again = NodeHost(host.storage.reopen(), joins=True)
    assert (again.node.applied, again.node.machine.records) == (host.node.applied, {})
    assert refusal(again.read(b"a", STALE)) == (Reason.WITNESS, Outcome.FAILED)


def test_a_witness_that_is_to_have_data_is_given_the_state_first() -> None:
    host = joined(MemberRole.WITNESS)
    choose(host, *[b""] * (ALPHA - 1))
    member = host.node.membership.get("n1")
    assert member is not None
    promoted = host.node.membership.changed(replace(member, becomes=MemberRole.VOTER))
    choose(host, value(Reconfigure(promoted), sequence=9))
    assert host.node.view.standing is Standing.WAITING
    assert refusal(host.read(b"k", STALE)) == (Reason.JOINING, Outcome.FAILED)
    again = NodeHost(host.storage.reopen(), joins=True)
    again.receive("n2", Heartbeat(B1, 9, 0))
    assert asked(again) == [FetchSnapshot(END)]
    for node in (host, again):
        applier = source(OTHERS, OTHERS.changed(newcomer("n1", "h:1", MemberRole.WITNESS)), promoted)
        applier.replay(applier.applied + 1, b"")
        give_end(node, applier)
        assert asked(node) == [FetchSnapshot(0)]
        give_all(node, applier)
        node.step()
        node.sync()
        assert seen(node.read(b"k", STALE)) == [b"v"]


def test_a_learner_writes_and_reads_by_way_of_the_leader() -> None:
    host = joined(MemberRole.LEARNER)
    assert host.node.view.standing is Standing.LEARNER
    answers = host.write(Put(b"k", b"w"))
    choose(host, proposed(host))
    assert answers == [PutResult(2, 2)]
    reads = host.read(b"k")
    (question,) = [one.message for one in host.step() if isinstance(one.message, ReadIndex)]
    host.receive("n2", ReadIndexReply(question.token, host.node.applied))
    host.step()
    assert seen(reads) == [b"w"]
