import pytest
from msgspec.structs import replace

from paxos.errors import InvariantError
from paxos.messages import (
    Accept,
    Accepted,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Reject,
    ReleaseLease,
)
from paxos.role import Role
from paxos.types import MS, NOOP, ZERO, Ballot, PValue
from tests.unit.paxos.harness import ME, OPTIONS, START, Bench, elect, expect_accepts, follow, pre_vote, prepare, to

B1 = Ballot(1, "n2")


def willing(nonce: int, promised: Ballot = ZERO, chosen: int = 0) -> PreVoteReply:
    return PreVoteReply(nonce, willing=True, promised=promised, chosen=chosen)


def unwilling(nonce: int) -> PreVoteReply:
    return PreVoteReply(nonce, willing=False, promised=ZERO, chosen=0)


# When to run


def test_rule_13_a_candidate_asks_before_it_prepares() -> None:
    bench = Bench(promised=B1)
    assert bench.role() is Role.FOLLOWER
    pre_vote(bench)
    assert bench.role() is Role.CANDIDATE
    assert bench.replica.promised == B1


def test_rule_13_while_a_leader_is_heard_nobody_runs() -> None:
    bench = Bench(promised=B1)
    for nonce in range(1, 20):
        bench.receive("n2", Heartbeat(B1, nonce, 0))
        bench.expect(to("n2", HeartbeatAck(B1, nonce, granted=True, chosen=0, votes=1)))
        bench.later(500)
        bench.tick()
        bench.expect()


def test_rule_13_without_a_willing_majority_nothing_is_prepared() -> None:
    bench = Bench(nodes=5)
    nonce = pre_vote(bench)
    bench.receive("n2", willing(nonce), willing(nonce))
    bench.receive("stranger", willing(nonce))
    bench.expect()
    bench.receive("n3", unwilling(nonce))
    bench.receive("n4", unwilling(nonce))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.receive("n5", unwilling(nonce))
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    assert bench.replica.promised == ZERO


def test_rule_9_an_answer_to_an_earlier_question_does_not_count() -> None:
    bench = Bench()
    first = pre_vote(bench)
    bench.later(OPTIONS.lease_ms)
    bench.tick()
    bench.replica.take(bench.now)
    second = pre_vote(bench)
    assert second != first
    bench.receive("n2", willing(first))
    bench.expect()
    bench.receive("n2", willing(second))
    bench.expect(
        votes=[to(ME, Promise(Ballot(1, ME), 1, (), 0)), *bench.to_all(Prepare(Ballot(1, ME), 1))],
        promise=Ballot(1, ME),
    )


def test_rule_14_a_candidacy_that_nobody_answers_ends_and_waits() -> None:
    bench = Bench()
    nonce = pre_vote(bench)
    began = bench.now
    for after_ms in (200, 400):
        assert bench.replica.next_deadline() == began + after_ms * MS
        bench.ring()
        bench.expect(*bench.to_all(PreVote(nonce, 1)))
    assert bench.replica.next_deadline() == began + 500 * MS
    bench.ring()
    assert bench.role() is Role.FOLLOWER
    bench.expect()
    assert bench.replica.next_deadline() > bench.now


def test_only_those_who_have_not_answered_are_asked_again() -> None:
    """A candidacy may last for half a minute after many failures: a question that is lost must not cost that."""
    bench = Bench(nodes=5)
    nonce = pre_vote(bench)
    bench.receive("n2", willing(nonce))
    bench.receive("n3", unwilling(nonce))
    bench.expect()
    bench.ring()
    bench.expect(*(to(peer, PreVote(nonce, 1)) for peer in ("n4", "n5")))


def test_rule_16_a_replica_that_granted_a_lease_does_not_run_itself() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.replica._roles.election_timer.expire(bench.now)
    bench.tick()
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    assert bench.replica.next_deadline() > bench.now


def test_rule_13_a_replica_that_hears_a_leader_does_not_run_when_its_grant_to_another_ends() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.later(400)
    newer = Ballot(B1.round + 1, "n3")
    bench.receive("n3", Heartbeat(newer, 1, 0))
    bench.expect(to("n3", HeartbeatAck(newer, 1, granted=False, chosen=0, votes=0)))
    assert bench.replica.next_deadline() > bench.now + 500 * MS


def test_rule_17_after_a_restart_the_own_candidacy_waits_too() -> None:
    bench = Bench(restarted=True)
    assert bench.replica.next_deadline() > START + 505 * MS


def test_rule_17_a_named_successor_that_just_restarted_waits_all_the_same() -> None:
    bench = Bench(promised=B1, restarted=True)
    bench.receive("n2", Heartbeat(B1, 1, 0))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=False, chosen=0, votes=1)))
    bench.receive("n2", ReleaseLease(B1, ME))
    assert bench.replica.next_deadline() == bench.now
    bench.tick()
    bench.expect()
    assert bench.role() is Role.FOLLOWER


def test_a_named_successor_runs_at_once_and_nobody_else() -> None:
    for successor, at_once in ((ME, True), ("n3", False), ("", False)):
        bench = Bench(promised=B1)
        follow(bench, B1)
        bench.receive("n2", ReleaseLease(B1, successor))
        bench.expect()
        assert bench.replica.leader_ballot is None
        assert (bench.replica.next_deadline() == bench.now) == at_once
        if at_once:
            pre_vote(bench)


def test_a_release_of_a_leader_that_is_not_followed_names_no_successor() -> None:
    bench = Bench(promised=B1)
    bench.receive("n2", ReleaseLease(B1, ME))
    assert bench.replica.next_deadline() > bench.now


def test_whoever_handed_over_runs_no_more() -> None:
    bench = Bench()
    pre_vote(bench)
    bench.replica.hand_over(bench.now)
    assert bench.role() is Role.FOLLOWER
    for _ in range(5):
        bench.ring()
        bench.expect()
        assert bench.replica.next_deadline() > bench.now


# Phase 1


def test_rule_2_the_round_is_durable_before_any_prepare_leaves() -> None:
    bench = Bench()
    ballot = prepare(bench)
    assert bench.replica.promised == ballot == Ballot(1, ME)
    bench.durable()
    bench.expect()


def test_rule_2_a_new_round_is_above_all_that_was_persisted() -> None:
    bench = Bench(promised=Ballot(7, "n3"))
    assert prepare(bench) == Ballot(8, ME)


def test_rule_2_a_new_round_is_above_all_that_was_seen() -> None:
    assert prepare(Bench(), highest=Ballot(9, "n3")) == Ballot(10, ME)
    rejected = Bench()
    rejected.receive("n2", Reject(B1, Ballot(11, "n3"), 0))
    rejected.receive("n2", willing(pre_vote(rejected)))
    assert rejected.replica.promised == Ballot(12, ME)
    heard = Bench()
    follow(heard, Ballot(5, "n2"))
    heard.later(505)
    heard.receive("n2", willing(pre_vote(heard)))
    assert heard.replica.promised == Ballot(6, ME)


def test_rule_3_the_own_promise_counts_only_when_it_is_durable() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.durable()
    assert bench.role() is Role.LEADER


def test_rule_9_a_promise_for_another_ballot_does_not_count() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    bench.receive("n2", Promise(Ballot(9, ME), 1, (), 0), Promise(B1, 1, (), 0))
    assert bench.role() is Role.CANDIDATE
    bench.receive("n2", Promise(ballot, 1, (), 0))
    assert bench.role() is Role.LEADER


def test_rule_9_a_promise_while_only_asking_or_after_all_is_over_does_not_count() -> None:
    bench = Bench()
    bench.receive("n2", Promise(Ballot(1, ME), 1, (), 0))
    bench.expect()
    pre_vote(bench)
    bench.receive("n2", Promise(Ballot(1, ME), 1, (), 0), Promise(Ballot(0, ME), 1, (), 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE


def test_rule_20_a_promise_that_comes_after_a_higher_one_was_made_elects_nobody() -> None:
    bench = Bench()
    ballot = prepare(bench)
    higher = Ballot(2, "n3")
    bench.receive("n3", Prepare(higher, 1))
    bench.expect(votes=[to("n3", Promise(higher, 1, (), 0))], promise=higher)
    bench.durable()
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER


def test_rule_20_a_leader_that_shows_up_ends_the_candidacy() -> None:
    bench = Bench()
    ballot = prepare(bench)
    other = Ballot(1, "n2")
    assert other > ballot
    bench.receive("n2", Heartbeat(other, 1, 0))
    bench.expect(to("n2", HeartbeatAck(other, 1, granted=True, chosen=0, votes=0)))
    assert bench.replica.leader_ballot == other
    bench.durable()
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER


def test_rule_10_phase_1_begins_at_the_first_slot_not_known_chosen() -> None:
    tail = [PValue(1, B1, b"a"), PValue(2, B1, b"b"), PValue(3, B1, b"c")]
    bench = Bench(promised=B1, chosen=1, tail=tail)
    ballot = elect(bench, [PValue(2, B1, b"b")], values=[b"b", b"c"])
    assert ballot == Ballot(2, ME)


def test_rule_10_the_highest_ballot_of_own_and_others_is_proposed_again_and_gaps_are_filled() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"old")])
    elect(bench, [PValue(1, Ballot(1, "n3"), b"new"), PValue(3, B1, b"three")], values=[b"new", NOOP, b"three"])


def test_rule_9_the_pages_of_a_promise_are_asked_for_one_by_one() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    first = Promise(ballot, 1, (PValue(1, B1, b"a"),), 3)
    bench.receive("n2", first)
    bench.expect(votes=[to("n2", Prepare(ballot, 3))])
    bench.receive("n2", Promise(ballot, 3, (PValue(3, B1, b"c"),), 0))
    heartbeat = bench.to_all(Heartbeat(ballot, 1, 0))
    expect_accepts(bench, ballot, 1, [b"a", NOOP, b"c", NOOP], before=heartbeat)


def test_rule_26_copies_of_a_page_ask_once_for_the_next_page() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    first = Promise(ballot, 1, (PValue(1, B1, b"a"),), 3)
    bench.receive("n2", first, first)
    bench.expect(votes=[to("n2", Prepare(ballot, 3))])
    bench.receive("n2", first)
    bench.expect()


def test_rule_9_the_own_acceptor_answers_page_by_page_too() -> None:
    tail = [PValue(1, B1, b"aa"), PValue(2, B1, b"bb")]
    bench = Bench(promised=B1, tail=tail, options=replace(OPTIONS, page_bytes=3))
    ballot = prepare(bench)
    bench.durable()
    bench.expect(votes=[to(ME, Promise(ballot, 2, (tail[1],), 0))])
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    bench.durable()
    heartbeat = bench.to_all(Heartbeat(ballot, 1, 0))
    expect_accepts(bench, ballot, 1, [b"aa", b"bb", NOOP], before=heartbeat)


def test_a_prepare_that_is_not_answered_is_repeated_to_those_who_owe_an_answer() -> None:
    bench = Bench(nodes=5)
    ballot = prepare(bench)
    asked = bench.now
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.replica.next_deadline() == asked + 200 * MS
    bench.later(199)
    bench.tick()
    bench.expect()
    bench.ring()
    again = Prepare(ballot, 1)
    bench.expect(votes=[to("n3", again), to("n4", again), to("n5", again)])


def test_a_copy_of_a_page_from_an_acceptor_that_owes_nothing_asks_for_nothing() -> None:
    bench = Bench(nodes=5)
    ballot = prepare(bench)
    bench.durable()
    first = Promise(ballot, 1, (PValue(1, B1, b"a"),), 3)
    bench.receive("n2", first)
    bench.expect(votes=[to("n2", Prepare(ballot, 3))])
    bench.receive("n2", Promise(ballot, 3, (), 0), first)
    bench.expect()


def test_rule_14_a_candidate_that_too_many_refuse_gives_up_and_waits() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    bench.receive("n2", Reject(Ballot(9, ME), Ballot(9, ME), 0), Reject(ballot, B1, 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.receive("n3", Reject(ballot, Ballot(4, "n2"), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER
    assert bench.replica.next_deadline() > bench.now


def test_rule_14_a_candidate_that_hears_too_little_gives_up() -> None:
    bench = Bench()
    prepare(bench)
    began = bench.now
    while bench.role() is Role.CANDIDATE:
        bench.ring()
        bench.replica.take(bench.now)
    assert bench.now == began + 500 * MS


def test_a_refusal_while_only_asking_does_not_count() -> None:
    bench = Bench()
    pre_vote(bench)
    bench.receive("n2", Reject(Ballot(1, ME), ZERO, 0))
    bench.receive("n3", Reject(Ballot(1, ME), ZERO, 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE


def test_rule_11_a_candidate_that_lags_fetches_what_an_acceptor_has_cut() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    bench.receive("n2", Reject(ballot, B1, 4))
    bench.expect(to("n2", Fetch(1)))
    values = [PValue(slot, Ballot(1, ME), b"v") for slot in (1, 2, 3)]
    bench.receive("n2", Learn(tuple(values), 3, 0))
    bench.expect(accepts=values, chosen=[(slot, b"v") for slot in (1, 2, 3)])
    bench.receive("n3", Reject(ballot, B1, 4))
    bench.expect()
    bench.ring()
    bench.expect(*bench.to_all(PreVote(bench.replica._roles.attempts, 4)))


def test_rule_8_a_value_learnt_under_a_higher_ballot_ends_the_candidacy() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    higher = Ballot(3, "n3")
    bench.receive("n3", Learn((PValue(1, higher, b"a"),), 1, 0))
    bench.expect(promise=higher, accepts=[PValue(1, higher, b"a")], chosen=[(1, b"a")])
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.FOLLOWER


def test_a_cluster_of_one_leads_as_soon_as_its_disk_answers() -> None:
    bench = Bench(nodes=1)
    bench.ring()
    ballot = Ballot(1, ME)
    bench.expect(votes=[to(ME, Promise(ballot, 1, (), 0))], promise=ballot)
    bench.durable()
    expect_accepts(bench, ballot, 1, [NOOP])
    assert not bench.replica.lease_holds(bench.now)
    bench.durable()
    bench.expect(chosen=[(1, NOOP)])
    assert bench.replica.lease_holds(bench.now)


def test_rule_20_whoever_is_elected_still_stands_by_its_own_promise() -> None:
    bench = Bench()
    ballot = prepare(bench)
    bench.durable()
    bench.replica._acceptor.promised = Ballot(9, "n3")
    with pytest.raises(InvariantError, match=r"below the promise 9\.n3 of the own acceptor"):
        bench.receive("n2", Promise(ballot, 1, (), 0))


def test_an_accept_of_another_leader_ends_the_candidacy() -> None:
    bench = Bench()
    pre_vote(bench)
    bench.receive("n2", Accept(B1, 1, b"a", 0))
    bench.expect(votes=[to("n2", Accepted(B1, 1))], promise=B1, accepts=[PValue(1, B1, b"a")])
    assert (bench.role(), bench.replica.leader_ballot) == (Role.FOLLOWER, B1)


def test_nothing_is_sent_to_oneself_when_the_own_log_was_cut_during_the_candidacy() -> None:
    """Schedule: the own promise waits for the disk; a Learn moves the own floor above the first slot of the phase1;
    the Prepare is repeated. Messages go to peers: only votes may be for oneself."""
    bench = Bench(options=replace(OPTIONS, recent_slots=1))
    ballot = prepare(bench)
    values = [PValue(slot, Ballot(0, "n2"), b"v") for slot in (1, 2, 3)]
    bench.receive("n2", Learn(tuple(values), 3, 0))
    bench.expect(accepts=values, chosen=[(slot, b"v") for slot in (1, 2, 3)])
    bench.ring()
    bench.expect(votes=bench.to_all(Prepare(ballot, 1)))


def test_rule_11_the_own_acceptor_is_not_asked_for_a_page_that_it_has_cut_meanwhile() -> None:
    """Its promise stays incomplete and counts nowhere: the others have to make the majority."""
    held = [PValue(1, B1, b"aa"), PValue(2, B1, b"bb")]
    bench = Bench(promised=B1, tail=held, options=replace(OPTIONS, page_bytes=3, recent_slots=1))
    ballot = prepare(bench)
    learnt = [PValue(3, B1, b"c")]
    bench.receive("n2", Learn((*held, *learnt), 3, 0))
    bench.expect(accepts=learnt, chosen=[(1, b"aa"), (2, b"bb"), (3, b"c")])
    bench.durable()
    bench.expect()
    bench.receive("n2", Promise(ballot, 1, (), 0))
    bench.expect()
    assert bench.role() is Role.CANDIDATE
    bench.receive("n3", Promise(ballot, 1, (*held, *learnt), 0))
    before = bench.to_all(Heartbeat(ballot, 1, 3))
    expect_accepts(bench, ballot, 1, [b"aa", b"bb", b"c", NOOP], before=before)


def test_rule_9_an_answer_to_an_earlier_life_fits_no_question() -> None:
    nonces = {pre_vote(Bench(seed=seed)) for seed in range(20)}
    assert len(nonces) == 20
