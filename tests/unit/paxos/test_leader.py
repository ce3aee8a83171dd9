import pytest
from msgspec.structs import replace

from paxos.errors import InvariantError
from paxos.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Propose,
    ReadIndex,
    Reject,
    ReleaseLease,
)
from paxos.role import Role
from paxos.types import MS, NOOP, ZERO, Ballot, PValue, pack
from tests.unit.paxos.harness import (
    LEADER_LEASE,
    ME,
    OPTIONS,
    Bench,
    ack,
    elect,
    establish,
    expect_accepts,
    prepare,
    reign,
    to,
)

A = pack([b"a"])


# Phase 2


def test_rule_10_a_leader_proposes_one_no_op_of_its_own_and_is_established_when_it_is_chosen() -> None:
    bench = Bench()
    ballot = elect(bench)
    assert (bench.role(), bench.replica.leader_ballot) == (Role.LEADER, ballot)
    assert not bench.replica.caught_up
    bench.durable()
    bench.receive("n2", Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, NOOP)])
    assert bench.replica.caught_up


def test_rule_3_the_own_vote_counts_only_when_it_is_durable() -> None:
    bench = Bench()
    ballot = elect(bench)
    bench.receive("n2", Accepted(ballot, 1))
    bench.expect()
    bench.durable()
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, NOOP)])


def test_rule_3_a_majority_of_others_is_a_majority() -> None:
    bench = Bench()
    ballot = elect(bench)
    bench.receive("n2", Accepted(ballot, 1))
    bench.receive("n3", Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, NOOP)])


def test_rule_9_votes_count_for_their_ballot_and_slot_and_sender_only() -> None:
    bench = Bench()
    ballot = elect(bench)
    bench.receive("n2", Accepted(ballot, 1), Accepted(ballot, 1))
    bench.receive("n3", Accepted(Ballot(9, ME), 1), Accepted(ballot, 2))
    bench.receive("stranger", Accepted(ballot, 1))
    bench.expect()


def test_rule_12_slots_are_chosen_in_any_order_and_applied_in_theirs() -> None:
    bench = Bench()
    ballot = establish(bench)
    assert bench.replica.propose((b"a",))
    expect_accepts(bench, ballot, 2, [A])
    bench.replica.propose((b"b",))
    expect_accepts(bench, ballot, 3, [pack([b"b"])])
    for peer in bench.peers:
        bench.receive(peer, Accepted(ballot, 3))
    bench.expect()
    for peer in bench.peers:
        bench.receive(peer, Accepted(ballot, 2))
    bench.expect(*bench.to_all(Chosen(ballot, 3)), chosen=[(2, A), (3, pack([b"b"]))])


def test_chosen_rides_on_the_next_accept_where_there_is_one() -> None:
    bench = Bench()
    ballot = elect(bench)
    bench.durable()
    bench.receive("n2", Accepted(ballot, 1))
    bench.receive("n3", Propose((b"a",)))
    accept = Accept(ballot, 2, A, 1)
    bench.expect(
        *bench.to_all(accept),
        votes=[to(ME, Accepted(ballot, 2))],
        accepts=[PValue(2, ballot, A)],
        chosen=[(1, NOOP)],
    )


def test_payloads_that_wait_for_the_window_share_a_slot() -> None:
    bench = Bench(options=replace(OPTIONS, window=1))
    ballot = elect(bench)
    bench.replica.propose((b"a",))
    bench.receive("n2", Propose((b"b", b"c")))
    bench.expect()
    assert bench.replica.queued == 3
    bench.durable()
    bench.receive("n2", Accepted(ballot, 1))
    value = pack([b"a", b"b", b"c"])
    bench.expect(
        *bench.to_all(Accept(ballot, 2, value, 1)),
        votes=[to(ME, Accepted(ballot, 2))],
        accepts=[PValue(2, ballot, value)],
        chosen=[(1, NOOP)],
    )
    assert bench.replica.queued == 0


def test_an_accept_is_sent_again_to_those_who_have_not_answered_with_a_doubling_wait() -> None:
    bench = Bench(nodes=5, options=replace(OPTIONS, heartbeat_ms=400, lease_ms=900))
    ballot = elect(bench)
    bench.receive("n2", Accepted(ballot, 1))
    began = bench.now
    bench.later(200)
    assert bench.replica.next_deadline() == bench.now
    again = Accept(ballot, 1, NOOP, 0)
    bench.tick()
    bench.expect(*[to(peer, again) for peer in ("n3", "n4", "n5")])
    assert bench.replica.next_deadline() == began + 400 * MS
    bench.later(200)
    bench.tick()
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 0)))
    bench.later(200)
    bench.tick()
    bench.expect(*[to(peer, again) for peer in ("n3", "n4", "n5")])


def test_a_vote_for_a_ballot_of_which_the_own_acceptor_thinks_no_more_is_a_bug() -> None:
    bench = Bench()
    establish(bench)
    bench.replica._acceptor.promised = Ballot(9, "n3")
    bench.replica.propose((b"a",))
    with pytest.raises(InvariantError, match="leader's own acceptor promised another ballot"):
        bench.replica.take(bench.now)


# Leases


def test_rule_15_the_lease_counts_from_the_send_time_of_the_heartbeat_over_a_majority() -> None:
    bench = Bench()
    ballot = establish(bench)
    sent = bench.now
    assert not bench.replica.lease_holds(bench.now)
    bench.later(50)
    bench.receive("n2", ack(ballot, 1))
    bench.expect()
    assert bench.replica.lease_until == sent + LEADER_LEASE
    assert bench.replica.lease_holds(sent + LEADER_LEASE - 1)
    assert not bench.replica.lease_holds(sent + LEADER_LEASE)


def test_rule_10_a_leader_that_is_not_established_holds_no_lease_to_read_by() -> None:
    bench = Bench()
    ballot = elect(bench)
    bench.receive("n2", ack(ballot, 1))
    bench.receive("n3", ack(ballot, 1))
    bench.expect()
    assert not bench.replica.lease_holds(bench.now)
    bench.durable()
    bench.receive("n2", Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, NOOP)])
    assert bench.replica.lease_holds(bench.now)


def test_rule_9_an_answer_under_another_ballot_gives_no_lease() -> None:
    bench = Bench()
    establish(bench)
    bench.receive("n2", ack(Ballot(9, ME), 1))
    bench.expect()
    assert not bench.replica.lease_holds(bench.now)


def test_rule_16_each_heartbeat_has_a_fresh_nonce_and_they_leave_every_interval() -> None:
    bench = Bench()
    ballot = reign(bench)
    for nonce in (2, 3, 4):
        before = bench.now
        bench.ring()
        assert bench.now == before + 100 * MS
        bench.expect(*bench.to_all(Heartbeat(ballot, nonce, 1)))
        bench.receive("n2", ack(ballot, nonce))
        bench.expect()
        assert bench.replica.lease_until == bench.now + LEADER_LEASE


def test_rule_16_the_own_acceptor_refuses_other_candidates_under_its_own_grant() -> None:
    bench = Bench()
    ballot = reign(bench)
    higher = Ballot(9, "n3")
    bench.receive("n3", PreVote(1, 2), Prepare(higher, 2))
    bench.expect(
        to("n3", PreVoteReply(1, willing=False, promised=ballot, chosen=1)), to("n3", Reject(higher, ballot, 0))
    )
    assert bench.role() is Role.LEADER


def test_rule_20_a_leader_that_promised_to_another_leads_no_more() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.later(506)
    higher = Ballot(9, "n3")
    bench.receive("n3", Prepare(higher, 2))
    bench.expect(votes=[to("n3", Promise(higher, 2, (), 0))], promise=higher)
    assert (bench.role(), bench.replica.leader_ballot) == (Role.FOLLOWER, None)
    bench.receive("n2", Accepted(ballot, 2), ack(ballot, 1), ReadIndex(1, quorum=False), Propose((b"a",)))
    bench.expect()


def test_rule_20_a_leader_that_hears_a_higher_leader_follows_it() -> None:
    bench = Bench()
    reign(bench)
    higher = Ballot(9, "n3")
    bench.receive("n3", Heartbeat(higher, 1, 1))
    bench.expect(to("n3", HeartbeatAck(higher, 1, granted=False, chosen=1, votes=0)))
    assert (bench.role(), bench.replica.leader_ballot) == (Role.FOLLOWER, higher)
    assert not bench.replica.lease_holds(bench.now)
    assert bench.replica.lease_until is None


def test_rule_8_a_leader_that_learns_a_value_of_a_higher_ballot_leads_no_more() -> None:
    bench = Bench()
    reign(bench)
    higher = Ballot(9, "n3")
    bench.receive("n3", Learn((PValue(2, higher, b"b"),), 2, 0))
    bench.expect(promise=higher, accepts=[PValue(2, higher, b"b")], chosen=[(2, b"b")])
    assert bench.role() is Role.FOLLOWER


def test_rule_13_a_voter_with_a_high_promise_is_won_back_under_a_higher_ballot() -> None:
    """While the lease holds nobody else can lead, so nobody else is deposed by that."""
    bench = Bench()
    ballot = reign(bench)
    bench.receive("n3", Reject(ballot, Ballot(7, "n3"), 0))
    higher = Ballot(8, ME)
    bench.expect(
        votes=[to(ME, Promise(higher, 2, (), 0)), *bench.to_all(Prepare(higher, 2))],
        promise=higher,
    )
    assert bench.role() is Role.CANDIDATE
    assert not bench.replica.lease_holds(bench.now)
    bench.receive("n3", Reject(ballot, Ballot(7, "n3"), 0))
    bench.expect()
    bench.durable()
    bench.receive("n2", Promise(higher, 2, (), 0))
    expect_accepts(bench, higher, 2, [NOOP], before=bench.to_all(Heartbeat(higher, 1, 1)))


def test_rule_13_a_leader_without_a_lease_that_is_outbid_steps_aside() -> None:
    bench = Bench()
    ballot = establish(bench)
    bench.receive("n3", Reject(ballot, Ballot(7, "n3"), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    assert bench.replica.promised == ballot


def test_a_refusal_that_outbids_nothing_leaves_the_leader_alone() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.receive("n3", Reject(ballot, Ballot(0, "n3"), 0), Reject(Ballot(0, ME), Ballot(7, "n3"), 0))
    bench.receive("n2", PreVoteReply(1, willing=True, promised=ZERO, chosen=0), Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.LEADER


# Rule 19: a leader that stalls steps down


def test_rule_19_a_leader_whose_own_disk_stalls_steps_down_even_though_all_else_flows() -> None:
    bench = Bench()
    ballot = elect(bench)
    for peer in bench.peers:
        bench.receive(peer, Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, NOOP)])
    for nonce in range(2, 12):
        bench.later(100)
        bench.tick()
        bench.expect(*bench.to_all(Heartbeat(ballot, nonce, 1)))
        bench.receive("n2", ack(ballot, nonce))
    bench.later(100)
    bench.tick()
    bench.expect(*bench.to_all(Heartbeat(ballot, 12, 1)), *bench.to_all(ReleaseLease(ballot, "")))
    assert bench.role() is Role.FOLLOWER


def test_rule_19_a_leader_whose_proposals_are_not_chosen_steps_down_even_though_its_lease_is_renewed() -> None:
    bench = Bench(options=replace(OPTIONS, retransmit_ms=5000))
    ballot = reign(bench)
    bench.replica.propose((b"a",))
    expect_accepts(bench, ballot, 2, [A])
    bench.durable()
    for nonce in range(2, 12):
        bench.later(100)
        bench.tick()
        bench.expect(*bench.to_all(Heartbeat(ballot, nonce, 1)))
        bench.receive("n2", ack(ballot, nonce))
    bench.later(100)
    bench.tick()
    bench.expect(*bench.to_all(Heartbeat(ballot, 12, 1)), *bench.to_all(ReleaseLease(ballot, "")))
    assert bench.role() is Role.FOLLOWER


def test_rule_19_reads_that_postpone_each_heartbeat_do_not_postpone_the_end_of_a_stalled_leader() -> None:
    bench = Bench(options=replace(OPTIONS, retransmit_ms=5000))
    ballot = reign(bench)
    bench.replica.propose((b"a",))
    expect_accepts(bench, ballot, 2, [A])
    bench.durable()
    proposed_at = bench.now
    nonce = 2
    while bench.role() is Role.LEADER:
        assert bench.now < proposed_at + (OPTIONS.stall_ms + 2 * OPTIONS.heartbeat_ms) * MS
        if bench.replica.next_deadline() <= bench.now:
            bench.tick()
        else:
            bench.replica.read(nonce, bench.now, quorum=True)
            bench.replica.take(bench.now)
            bench.receive("n2", ack(ballot, nonce))
            nonce += 1
        bench.replica.take(bench.now)
        bench.later(50)


def test_rule_19_a_leader_that_no_majority_answers_steps_down() -> None:
    bench = Bench()
    reign(bench)
    for _ in range(10):
        bench.ring()
        bench.replica.take(bench.now)
        assert bench.role() is Role.LEADER
    bench.ring()
    assert bench.role() is Role.FOLLOWER


def test_rule_19_own_votes_that_come_back_late_but_in_time_are_no_stall() -> None:
    bench = Bench()
    ballot = elect(bench)
    for nonce in range(2, 30):
        bench.durable()
        bench.receive("n2", Accepted(ballot, nonce - 1), ack(ballot, nonce - 1))
        bench.replica.propose((b"%d" % nonce,))
        bench.later(100)
        bench.tick()
        bench.replica.take(bench.now)
        bench._undurable.clear()
        bench.receive(ME, Accepted(ballot, nonce))
        assert bench.role() is Role.LEADER


# Hand-over


def test_rule_16_a_leader_that_hands_over_leads_no_more_and_names_who_was_heard_last_and_has_most() -> None:
    bench = Bench(nodes=5)
    ballot = reign(bench)
    bench.receive("n4", ack(ballot, 1, chosen=9))
    bench.later(301)
    bench.receive("n2", ack(ballot, 1, chosen=3))
    bench.receive("n3", ack(ballot, 1, chosen=5))
    bench.replica.hand_over(bench.now)
    bench.expect(*bench.to_all(ReleaseLease(ballot, "n3")))
    assert not bench.replica.lease_holds(bench.now)
    assert bench.role() is Role.FOLLOWER
    bench.receive("n3", PreVote(1, 2))
    bench.expect(to("n3", PreVoteReply(1, willing=True, promised=ballot, chosen=1)))


def test_a_leader_that_heard_nobody_hands_over_to_anybody() -> None:
    bench = Bench()
    ballot = establish(bench)
    bench.replica.hand_over(bench.now)
    bench.expect(*bench.to_all(ReleaseLease(ballot, "")))


def test_a_leader_that_steps_aside_may_lead_again() -> None:
    """Its disk is full, which may end; `hand_over` is for the end of the process."""
    bench = Bench()
    ballot = establish(bench)
    bench.replica.step_aside(bench.now)
    bench.expect(*bench.to_all(ReleaseLease(ballot, "")))
    assert bench.role() is Role.FOLLOWER
    bench.later(10_000)
    bench.tick()
    assert bench.role() is Role.CANDIDATE


def test_a_follower_that_hands_over_says_nothing() -> None:
    bench = Bench()
    bench.replica.hand_over(bench.now)
    bench.expect()


def test_a_leader_learns_what_it_lacks_like_everybody() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    bench.receive("n2", Learn((PValue(1, Ballot(0, "n9"), b"a"),), 2, 0))
    bench.expect(to("n2", Fetch(2)), accepts=[PValue(1, Ballot(0, "n9"), b"a")], chosen=[(1, b"a")])
    bench.receive("n2", Promise(ballot, 1, (PValue(1, Ballot(0, "n9"), b"a"), PValue(2, Ballot(0, "n9"), b"b")), 0))
    before = bench.to_all(Heartbeat(ballot, 1, 1))
    expect_accepts(bench, ballot, 1, [b"a", b"b", NOOP], before=before)
    bench.durable()
    bench.receive("n2", Accepted(ballot, 1), Accepted(ballot, 2), Accepted(ballot, 3))
    bench.expect(*bench.to_all(Chosen(ballot, 3)), chosen=[(2, b"b"), (3, NOOP)])
