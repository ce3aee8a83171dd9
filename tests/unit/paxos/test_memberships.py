"""Memberships that change: who is counted for which slot, by candidates, leaders and leases."""

import pytest
from msgspec.structs import replace

from paxos.configuration import ALPHA, ConfigurationVersion
from paxos.errors import InvariantError
from paxos.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    Heartbeat,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Reject,
    ReleaseLease,
)
from paxos.role import Role
from paxos.types import NOOP, ZERO, Ballot, Configuration, NodeId, PValue, Slot, pack
from tests.unit.paxos.harness import (
    LEADER_LEASE,
    ME,
    OPTIONS,
    Bench,
    ack,
    elect,
    expect_accepts,
    pre_vote,
    reign,
    to,
)

THREE = Configuration((ME, "n2", "n3"))
FOUR = Configuration((ME, "n2", "n3", "n4"))
FIVE = Configuration((ME, "n2", "n3", "n4", "n5"))
FIRST = 2 + ALPHA
"""Where a configuration is in force that was chosen in slot 2."""
GROWING, SHRINKING = (
    [ConfigurationVersion(1, THREE), ConfigurationVersion(FIRST, FOUR)],
    [ConfigurationVersion(1, FOUR), ConfigurationVersion(FIRST, THREE)],
)
NOBODY = Configuration(())
WIDE = replace(OPTIONS, window=3 * ALPHA, max_batch_bytes=1)


def willing(nonce: int) -> PreVoteReply:
    return PreVoteReply(nonce, willing=True, promised=ZERO, chosen=0)


def unwilling(nonce: int) -> PreVoteReply:
    return PreVoteReply(nonce, willing=False, promised=ZERO, chosen=0)


def change(bench: Bench, configuration: Configuration, first: Slot = FIRST) -> None:
    """The host has applied a configuration."""
    bench.replica.reconfigure(ConfigurationVersion(first, configuration), bench.now)


def prepared(bench: Bench, *sources: NodeId) -> Ballot:
    """PreVote with these willing, and see the Prepare."""
    nonce = pre_vote(bench)
    for source in sources:
        bench.expect()
        bench.receive(source, willing(nonce))
    ballot = Ballot(1, ME)
    bench.expect(votes=[to(ME, Promise(ballot, 1, (), 0)), *bench.to_all(Prepare(ballot, 1))], promise=ballot)
    bench.durable()
    return ballot


def choose(bench: Bench, ballot: Ballot, *slots: Slot, by: NodeId = "n2") -> None:
    """The disk and one peer accept these."""
    bench.durable()
    bench.receive(by, *[Accepted(ballot, slot) for slot in slots])


def new_slots(bench: Bench) -> list[Slot]:
    """The slots that begin with this step; all else that it brings is left out of account."""
    ready = bench.replica.take(bench.now)
    if ready.write is not None:
        bench._undurable.append(ready.write)
    return [pvalue.slot for pvalue in ready.write.accepts] if ready.write is not None else []


# The founding


def test_rule_30_a_replica_begins_with_the_founded_configuration_unless_it_knows_a_chosen_slot() -> None:
    version = ConfigurationVersion(1, FOUR)
    new = Bench(versions=[ConfigurationVersion(1, Configuration(()))])
    new.replica.begin(0, [version])
    assert new.replica.configurations.newest == FOUR
    with pytest.raises(InvariantError, match="was told to begin"):
        Bench(chosen=3).replica.begin(0, [version])


def test_rule_30_the_log_of_a_restored_cluster_begins_after_the_restored_slot() -> None:
    new = Bench(versions=[ConfigurationVersion(1, Configuration(()))])
    new.replica.begin(7, [ConfigurationVersion(8, FOUR)])
    assert (new.replica.chosen, new.replica.configurations.newest) == (7, FOUR)


# ALPHA


def test_rule_27_a_leader_proposes_no_slot_more_than_alpha_beyond_what_the_host_has_applied() -> None:
    bench = Bench(options=WIDE)
    ballot = reign(bench)
    payloads = [b"%d" % (number % 10) for number in range(2 * ALPHA)]
    bench.replica.propose(tuple(payloads))
    values = [pack([payload]) for payload in payloads]
    expect_accepts(bench, ballot, 2, values[:ALPHA])
    assert bench.replica.queued == ALPHA
    bench.expect()
    choose(bench, ballot, 2, 3)
    bench.expect(*bench.to_all(Chosen(ballot, 3)), chosen=[(2, values[0]), (3, values[1])])
    expect_accepts(bench, ballot, 2 + ALPHA, values[ALPHA : ALPHA + 2])
    bench.expect()


def test_rule_27_what_was_recovered_waits_for_what_the_host_has_applied_too() -> None:
    """All of it is known to be in order, but not who decides it: what is chosen in between may say so."""
    bench = Bench(options=WIDE)
    recovered = [PValue(slot, Ballot(0, "n9"), b"v") for slot in range(1, ALPHA + 3)]
    ballot = Ballot(1, ME)
    prepared(bench, "n2")
    bench.receive("n2", Promise(ballot, 1, tuple(recovered), 0))
    before = bench.to_all(Heartbeat(ballot, 1, 0))
    expect_accepts(bench, ballot, 1, [b"v"] * ALPHA, before=before)
    choose(bench, ballot, 1)
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, b"v")])
    expect_accepts(bench, ballot, ALPHA + 1, [b"v"])


# Phase 1


@pytest.mark.parametrize(
    ("versions", "enough_for_one", "enough_for_both"),
    [(GROWING, ["n2"], ["n2", "n3"]), (GROWING, ["n4"], ["n2", "n4"]), (SHRINKING, ["n2"], ["n2", "n4"])],
    ids=["voters of the first", "the one that comes", "voters of the second"],
)
def test_rule_27_phase_1_takes_a_majority_of_each_membership_that_decides_an_open_slot(
    versions: list[ConfigurationVersion], enough_for_one: list[NodeId], enough_for_both: list[NodeId]
) -> None:
    asking = Bench(versions=versions)
    nonce = pre_vote(asking)
    for peer in enough_for_one:
        asking.receive(peer, willing(nonce))
    asking.expect()
    bench = Bench(versions=versions)
    ballot = prepared(bench, *enough_for_both)
    for peer in enough_for_one:
        bench.receive(peer, Promise(ballot, 1, (), 0))
    assert bench.role() is Role.CANDIDATE
    for peer in enough_for_both:
        bench.receive(peer, Promise(ballot, 1, (), 0))
    assert bench.role() is Role.LEADER


def test_rule_27_a_candidate_is_without_hope_when_one_membership_is_out_of_reach() -> None:
    bench = Bench(versions=SHRINKING)
    nonce = pre_vote(bench)
    bench.receive("n4", unwilling(nonce))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.receive("n3", unwilling(nonce))
    bench.expect()
    assert bench.role() is Role.FOLLOWER


def test_rule_27_slots_that_are_chosen_need_no_majority_of_those_who_decided_them() -> None:
    tail = [PValue(FIRST - 1, Ballot(1, "n4"), NOOP)]
    bench = Bench(versions=SHRINKING, promised=Ballot(1, "n4"), chosen=FIRST - 1, tail=tail)
    bench.expect()
    bench.receive("n2", willing(pre_vote(bench)))
    ballot = Ballot(2, ME)
    bench.expect(votes=[to(ME, Promise(ballot, FIRST, (), 0)), *bench.to_all(Prepare(ballot, FIRST))], promise=ballot)
    assert bench.peers == ["n2", "n3"]


def test_rule_27_a_candidate_that_hears_of_a_membership_begins_again() -> None:
    """Its question was for the configurations that it knew: the promises of their majorities may not be enough."""
    bench = Bench()
    ballot = prepared(bench, "n2")
    change(bench, FOUR)
    assert bench.role() is Role.FOLLOWER
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    bench.receive("n3", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    bench.ring()
    bench.expect(*[to(peer, PreVote(bench.replica._roles.attempts, 1)) for peer in ("n2", "n3", "n4")])


def test_rule_28_a_silent_voter_is_heard_neither_by_candidates_nor_by_leaders() -> None:
    """n3 may have a new disk: its answers are those of nobody who ever voted."""
    silenced = Configuration((ME, "n2"), learners=("n3",), unverified=("n3",))
    bench = Bench(versions=[ConfigurationVersion(1, THREE), ConfigurationVersion(FIRST, silenced)])
    nonce = pre_vote(bench)
    bench.receive("n3", willing(nonce))
    bench.expect()
    bench.receive("n2", willing(nonce))
    ballot = Ballot(1, ME)
    bench.expect(votes=[to(ME, Promise(ballot, 1, (), 0)), *bench.to_all(Prepare(ballot, 1))], promise=ballot)
    bench.durable()
    bench.receive("n3", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.receive("n2", Promise(ballot, 1, (), 0))
    assert bench.role() is Role.LEADER
    new_slots(bench)
    bench.durable()
    bench.receive("n3", Accepted(ballot, 1), ack(ballot, 1))
    assert new_slots(bench) == []
    assert (bench.replica.chosen, bench.replica.lease_until) == (0, 0)
    bench.receive("n2", Accepted(ballot, 1), ack(ballot, 1))
    bench.replica.take(bench.now)
    assert bench.replica.chosen == 1
    assert bench.replica.lease_holds(bench.now)


# A change under a leader


def leading(*promised: NodeId) -> tuple[Bench, Ballot]:
    """A leader of three voters, of whom n2 elected it and these promised later; slot 2 is chosen, the next are open."""
    bench = Bench()
    ballot = reign(bench)
    for peer in promised:
        bench.receive(peer, Promise(ballot, 1, (), 0))
    bench.replica.propose((b"change",))
    expect_accepts(bench, ballot, 2, [pack([b"change"])])
    choose(bench, ballot, 2)
    bench.expect(*bench.to_all(Chosen(ballot, 2)), chosen=[(2, pack([b"change"]))])
    return bench, ballot


def test_rule_27_a_leader_whose_promises_cover_the_new_membership_leads_on() -> None:
    bench, ballot = leading("n3")
    change(bench, FOUR)
    assert (bench.role(), bench.replica.leader_ballot) == (Role.LEADER, ballot)


def test_rule_27_a_leader_whose_promises_do_not_cover_it_prepares_again_under_a_higher_ballot() -> None:
    """Of four voters two have promised. The others may have promised to somebody else."""
    bench, ballot = leading()
    change(bench, FOUR)
    assert bench.role() is Role.CANDIDATE
    higher = Ballot(ballot.round + 1, ME)
    votes = [to(ME, Promise(higher, 3, (), 0)), *[to(peer, Prepare(higher, 3)) for peer in ("n2", "n3", "n4")]]
    bench.expect(votes=votes, promise=higher)
    bench.durable()
    bench.receive("n2", Promise(higher, 3, (), 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.receive("n4", Promise(higher, 3, (), 0))
    before = [to(peer, Heartbeat(higher, 1, 2)) for peer in ("n2", "n3", "n4")]
    window = OPTIONS.window
    accepts = [Accept(higher, slot, NOOP, 2) for slot in range(3, 3 + window)]
    bench.expect(
        *before,
        *[to(peer, accept) for accept in accepts for peer in ("n2", "n3", "n4")],
        votes=[to(ME, Accepted(higher, accept.slot)) for accept in accepts],
        accepts=[PValue(accept.slot, higher, NOOP) for accept in accepts],
    )


def test_rule_27_whoever_left_covers_nothing() -> None:
    """Elected by n2 and itself; with n2 gone one promise of two voters is left, which is no majority."""
    bench, _ = leading()
    change(bench, Configuration((ME, "n3")))
    assert bench.role() is Role.CANDIDATE


def test_rule_27_a_promise_of_who_left_covers_nothing_when_it_comes_back() -> None:
    bench, ballot = leading("n3")
    change(bench, Configuration((ME, "n2"), learners=("n3",)))
    assert bench.role() is Role.LEADER
    change(bench, Configuration((ME, "n3", "n2", "n4")), FIRST + ALPHA)
    assert bench.role() is Role.CANDIDATE
    assert bench.replica.promised == Ballot(ballot.round + 1, ME)


LATE = [
    ("n3", Promise(Ballot(1, ME), 1, (), 0), True),
    ("n3", Promise(Ballot(1, ME), 1, (PValue(2, Ballot(0, "n3"), b"x"),), 0), True),
    ("n3", Promise(Ballot(1, ME), 1, (PValue(3, Ballot(0, "n3"), b"x"),), 0), False),
    ("n3", Promise(Ballot(1, ME), 1, (), 9), False),
    ("n3", Promise(Ballot(1, ME), 2, (), 0), False),
    ("n3", Promise(Ballot(0, ME), 1, (), 0), False),
    ("n2", Promise(Ballot(1, ME), 1, (), 0), False),
    ("n9", Promise(Ballot(1, ME), 1, (), 0), False),
]
"""A sender, what it promises when the leader has proposed slots 1 and 2, and whether that counts."""


@pytest.mark.parametrize(
    ("sender", "late", "counts"),
    LATE,
    ids=[
        "nothing accepted",
        "slots that are settled",
        "a slot that is not proposed yet",
        "not all pages",
        "another page",
        "another ballot",
        "the same voter again",
        "nobody who votes",
    ],
)
def test_rule_27_a_promise_that_comes_late_counts_where_it_changes_nothing(
    sender: NodeId, late: Promise, counts: bool
) -> None:
    bench, _ = leading()
    bench.receive(sender, late)
    bench.expect()
    change(bench, FOUR)
    assert (bench.role() is Role.LEADER) == counts


def test_rule_27_no_ops_fill_up_to_the_first_slot_of_the_new_membership_and_no_further() -> None:
    bench, ballot = leading("n3")
    change(bench, FOUR)
    filled: list[Slot] = []
    while slots := new_slots(bench):
        filled += slots
        choose(bench, ballot, *slots)
        if bench.replica.chosen == FIRST - 1:
            break
    assert filled == list(range(3, FIRST))
    assert new_slots(bench) == new_slots(bench) == []
    assert bench.replica.chosen == FIRST - 1


def test_rule_27_commands_fill_it_as_well() -> None:
    bench, ballot = leading("n3")
    change(bench, FOUR)
    bench.replica.propose((b"a",))
    accepts = [(3, pack([b"a"])), (4, NOOP), (5, NOOP), (6, NOOP)]
    bench.expect(
        *[to(peer, Accept(ballot, slot, value, 2)) for slot, value in accepts for peer in ("n2", "n3", "n4")],
        votes=[to(ME, Accepted(ballot, slot)) for slot, _ in accepts],
        accepts=[PValue(slot, ballot, value) for slot, value in accepts],
    )


def test_rule_27_slots_are_chosen_by_the_majority_of_the_membership_that_decides_them() -> None:
    """n4 votes from its first slot on: not before, and then three of four are needed."""
    bench, ballot = leading("n3")
    change(bench, FOUR)
    slots = new_slots(bench)
    while slots:
        bench.receive("n4", *[Accepted(ballot, slot) for slot in slots])
        before = bench.replica.chosen
        bench.durable()
        assert bench.replica.chosen == before
        choose(bench, ballot, *slots)
        slots = new_slots(bench)
    assert bench.replica.chosen == FIRST - 1
    bench.replica.propose((b"a",))
    assert new_slots(bench) == [FIRST]
    choose(bench, ballot, FIRST)
    assert bench.replica.chosen == FIRST - 1
    bench.receive("n4", Accepted(ballot, FIRST))
    bench.replica.take(bench.now)
    assert bench.replica.chosen == FIRST


def test_an_accept_is_repeated_to_those_who_decide_its_slot_and_to_nobody_else() -> None:
    bench, _ = leading("n3")
    change(bench, FOUR)
    new_slots(bench)
    bench.later(OPTIONS.retransmit_ms)
    bench.tick()
    ready = bench.replica.take(bench.now)
    again = {envelope.to for envelope in ready.messages if isinstance(envelope.message, Accept)}
    assert again == {"n2", "n3"}


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(("n2", "n3")),
        Configuration(("n2", "n3"), learners=(ME,)),
        Configuration((ME, "n2", "n3"), witnesses=(ME,)),
    ],
    ids=["removed", "learner", "witness"],
)
def test_rule_29_a_leader_that_is_not_to_lead_any_more_hands_over_and_stands_no_more(
    configuration: Configuration,
) -> None:
    bench, ballot = leading("n3")
    bench.receive("n3", ack(ballot, 1, chosen=2))
    change(bench, configuration)
    bench.expect(*bench.to_all(ReleaseLease(ballot, "n3")))
    assert (bench.role(), bench.replica.lease_until) == (Role.FOLLOWER, None)
    for _ in range(5):
        bench.ring()
        bench.expect(*bench.to_all(PreVote(0, bench.replica.chosen + 1)))
        assert bench.role() is Role.FOLLOWER
    bench.receive("n3", Prepare(Ballot(2, "n3"), 3))
    bench.expect(votes=[to("n3", Promise(Ballot(2, "n3"), 3, (), 0))], promise=Ballot(2, "n3"))


def test_rule_29_a_leader_hands_over_to_nobody_who_may_not_lead() -> None:
    """n2 has the longest prefix, but is a witness; n3 leaves."""
    bench = Bench(nodes=4)
    ballot = reign(bench)
    bench.receive("n2", ack(ballot, 1, chosen=9))
    bench.receive("n3", ack(ballot, 1, chosen=8))
    bench.receive("n4", ack(ballot, 1, chosen=1))
    assert [bench.replica.chosen_by(peer) for peer in ("n2", "n3", "n4", "n5")] == [9, 8, 1, 0]
    change(bench, Configuration(("n2", "n4"), learners=("n3",), witnesses=("n2",)))
    bench.expect(*bench.to_all(ReleaseLease(ballot, "n4")))
    assert bench.replica.chosen_by("n2") == 0


@pytest.mark.parametrize("member", [Configuration(("n2", "n3"), learners=(ME,)), Configuration(("n2", "n3")), NOBODY])
def test_rule_29_a_replica_without_a_vote_never_stands_for_election(member: Configuration) -> None:
    bench = Bench(versions=[ConfigurationVersion(1, member)])
    for _ in range(5):
        bench.ring()
        bench.expect(*bench.to_all(PreVote(0, 1)))
        assert bench.role() is Role.FOLLOWER
        bench.receive("n2", PreVoteReply(0, willing=True, promised=ZERO, chosen=0))
        bench.receive("n3", PreVoteReply(0, willing=True, promised=ZERO, chosen=0))
        bench.expect()


def test_a_learner_that_knows_nobody_who_leads_learns_from_those_it_knows() -> None:
    """The one who leads joined while it was away: there is no link with that one."""
    bench = Bench(versions=[ConfigurationVersion(1, Configuration(("n2", "n3"), learners=(ME,)))])
    bench.ring()
    bench.expect(*bench.to_all(PreVote(0, 1)))
    bench.receive("n3", unwilling(0), PreVoteReply(0, willing=False, promised=Ballot(7, "n4"), chosen=12))
    bench.expect(to("n3", Fetch(1)))


def test_rule_29_a_witness_never_stands_and_votes_like_any_other() -> None:
    bench = Bench(versions=[ConfigurationVersion(1, Configuration((ME, "n2", "n3"), witnesses=(ME,)))])
    bench.ring()
    bench.expect(*bench.to_all(PreVote(0, 1)))
    ballot = Ballot(1, "n2")
    bench.receive("n2", Prepare(ballot, 1), Accept(ballot, 1, b"a", 0))
    votes = [to("n2", Promise(ballot, 1, (), 0)), to("n2", Accepted(ballot, 1))]
    bench.expect(votes=votes, promise=ballot, accepts=[PValue(1, ballot, b"a")])


def test_rule_29_a_learner_is_told_everything_and_counts_for_nothing() -> None:
    bench = Bench(versions=[ConfigurationVersion(1, Configuration((ME, "n2", "n3"), learners=("n4",)))])
    ballot = elect(bench)
    assert "n4" in bench.peers
    bench.durable()
    bench.receive("n4", Accepted(ballot, 1), ack(ballot, 1))
    bench.expect()
    assert bench.replica.lease_until == 0
    bench.receive("n2", Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, NOOP)])


# Leases


def test_rule_27_the_lease_takes_a_majority_of_each_membership_and_shrinks_at_once() -> None:
    bench, ballot = leading("n3")
    assert bench.replica.lease_until == bench.now + LEADER_LEASE
    change(bench, FOUR)
    assert not bench.replica.lease_holds(bench.now)
    bench.receive("n4", ack(ballot, 1))
    assert bench.replica.lease_until == bench.now + LEADER_LEASE


def test_rule_27_the_lease_needs_those_before_as_long_as_a_slot_of_theirs_is_open() -> None:
    """Of four voters three elected and confirmed; then n4 leaves, and only n2 answers the next heartbeats: a majority
    of the three that are left, and none of the four."""
    bench = Bench(nodes=4)
    ballot = reign(bench)
    elected = bench.now
    bench.receive("n4", Promise(ballot, 1, (), 0))
    change(bench, THREE)
    bench.ring()
    filled = new_slots(bench)
    bench.receive("n2", ack(ballot, 2))
    while bench.replica.chosen < FIRST - 1:
        assert bench.replica.lease_until == elected + LEADER_LEASE
        bench.receive("n3", *[Accepted(ballot, slot) for slot in filled])
        choose(bench, ballot, *filled)
        filled = new_slots(bench)
    assert bench.replica.lease_until == bench.now + LEADER_LEASE > elected + LEADER_LEASE
    assert bench.peers == ["n2", "n3"]


# The end of a reign


def test_rule_13_a_refusal_after_the_change_is_answered_like_before() -> None:
    bench, ballot = leading("n3")
    change(bench, FOUR)
    bench.receive("n4", ack(ballot, 1), Reject(ballot, Ballot(5, "n4"), 0))
    assert bench.role() is Role.CANDIDATE
    assert bench.replica.promised == Ballot(6, ME)
