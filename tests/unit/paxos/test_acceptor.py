import pytest
from msgspec.structs import replace

from paxos.errors import InvariantError
from paxos.messages import (
    Accept,
    Accepted,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Reject,
    ReleaseLease,
)
from paxos.types import ZERO, Ballot, PValue
from tests.unit.paxos.harness import OPTIONS, Bench, follow, to

B1, B2, B3 = Ballot(1, "n2"), Ballot(2, "n3"), Ballot(3, "n2")


def test_rule_1_a_promise_leaves_with_the_write_that_makes_it_durable() -> None:
    bench = Bench()
    bench.receive("n2", Prepare(B1, 1))
    bench.expect(votes=[to("n2", Promise(B1, 1, (), 0))], promise=B1)


def test_rule_8_a_ballot_below_the_promise_is_refused_and_told_why() -> None:
    bench = Bench(promised=B2)
    bench.receive("n2", Prepare(B1, 1), Accept(B1, 1, b"a", 0), Heartbeat(B1, 1, 0))
    bench.expect(*[to("n2", Reject(B1, B2, 0))] * 3)


def test_rule_8_a_repeated_prepare_gets_the_same_answer_after_the_earlier_write() -> None:
    bench = Bench()
    bench.receive("n2", Prepare(B1, 1))
    bench.expect(votes=[to("n2", Promise(B1, 1, (), 0))], promise=B1)
    bench.receive("n2", Prepare(B1, 1))
    bench.expect(votes=[to("n2", Promise(B1, 1, (), 0))])


def test_rule_8_an_accept_raises_the_promise_in_the_same_write() -> None:
    bench = Bench(promised=B1)
    bench.receive("n3", Accept(B2, 4, b"a", 0))
    bench.expect(votes=[to("n3", Accepted(B2, 4))], promise=B2, accepts=[PValue(4, B2, b"a")])
    bench.receive("n2", Accept(B1, 5, b"b", 0))
    bench.expect(to("n2", Reject(B1, B2, 0)))


def test_rule_8_a_repeated_accept_gets_the_same_answer_and_is_stored_once() -> None:
    bench = Bench(promised=B1)
    accept = Accept(B1, 1, b"a", 0)
    bench.receive("n2", accept)
    bench.expect(votes=[to("n2", Accepted(B1, 1))], accepts=[PValue(1, B1, b"a")])
    bench.receive("n2", accept)
    bench.expect(votes=[to("n2", Accepted(B1, 1))])


def test_rule_8_a_later_ballot_replaces_the_value_of_a_slot() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a")])
    bench.receive("n3", Accept(B2, 1, b"b", 0))
    bench.expect(votes=[to("n3", Accepted(B2, 1))], promise=B2, accepts=[PValue(1, B2, b"b")])
    bench.receive("n2", Prepare(B3, 1))
    bench.expect(votes=[to("n2", Promise(B3, 1, (PValue(1, B2, b"b"),), 0))], promise=B3)


def test_rule_7_two_values_under_one_ballot_end_the_process() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a")])
    with pytest.raises(InvariantError, match=r"two values for slot 1 under ballot 1\.n2"):
        bench.receive("n2", Accept(B1, 1, b"b", 0))


def test_rule_9_what_speaks_for_a_ballot_counts_only_from_its_owner() -> None:
    bench = Bench()
    bench.receive("n3", Prepare(B1, 1), Accept(B1, 1, b"a", 0), Heartbeat(B1, 1, 0), ReleaseLease(B1, "n1"))
    bench.expect()
    assert bench.replica.promised == ZERO


def test_rule_10_a_promise_tells_all_that_was_accepted_from_the_slot_on() -> None:
    tail = [PValue(1, B1, b"a"), PValue(2, B1, b"b"), PValue(4, B1, b"d")]
    bench = Bench(promised=B1, chosen=1, tail=tail)
    bench.receive("n3", Prepare(B2, 2))
    bench.expect(votes=[to("n3", Promise(B2, 2, tuple(tail[1:]), 0))], promise=B2)


def test_a_promise_that_does_not_fit_a_page_is_asked_for_page_by_page() -> None:
    tail = [PValue(1, B1, b"aa"), PValue(2, B1, b"bb")]
    bench = Bench(promised=B1, tail=tail, options=replace(OPTIONS, page_bytes=3))
    bench.receive("n3", Prepare(B2, 1), Prepare(B2, 2))
    bench.expect(votes=[to("n3", Promise(B2, 1, (tail[0],), 2)), to("n3", Promise(B2, 2, (tail[1],), 0))], promise=B2)


def test_rule_11_cut_is_not_empty_whoever_asks_below_the_floor_is_told_to_fetch() -> None:
    bench = Bench(promised=B1, chosen=3, tail=[PValue(3, B1, b"c")])
    bench.receive("n3", Prepare(B2, 2))
    bench.expect(to("n3", Reject(B2, B1, 3)))
    assert bench.replica.promised == B1


def test_rule_13_a_pre_vote_changes_nothing_and_tells_promise_and_prefix() -> None:
    bench = Bench(promised=B1, chosen=3, tail=[PValue(3, B1, b"c")])
    bench.receive("n3", PreVote(7, 3))
    bench.expect(to("n3", PreVoteReply(7, willing=True, promised=B1, chosen=3)))
    assert bench.replica.promised == B1


def test_rule_11_a_pre_vote_from_below_the_floor_meets_no_will() -> None:
    bench = Bench(promised=B1, chosen=3, tail=[PValue(3, B1, b"c")])
    bench.receive("n3", PreVote(7, 2))
    bench.expect(to("n3", PreVoteReply(7, willing=False, promised=B1, chosen=3)))


def test_rule_16_under_a_grant_every_other_candidate_is_refused() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.later(504)
    bench.receive("n3", PreVote(1, 1), Prepare(B2, 1))
    bench.expect(to("n3", PreVoteReply(1, willing=False, promised=B1, chosen=0)), to("n3", Reject(B2, B1, 0)))
    bench.later(1)
    bench.receive("n3", PreVote(2, 1), Prepare(B2, 1))
    bench.expect(
        to("n3", PreVoteReply(2, willing=True, promised=B1, chosen=0)),
        votes=[to("n3", Promise(B2, 1, (), 0))],
        promise=B2,
    )


def test_rule_16_under_a_grant_its_holder_may_take_a_higher_ballot() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.receive("n2", Prepare(B3, 1))
    bench.expect(votes=[to("n2", Promise(B3, 1, (), 0))], promise=B3)


def test_rule_17_after_a_restart_nobody_is_promised_anything_for_one_lease() -> None:
    bench = Bench(promised=B1, restarted=True)
    bench.later(504)
    bench.receive("n3", PreVote(1, 1), Prepare(B2, 1))
    bench.expect(to("n3", PreVoteReply(1, willing=False, promised=B1, chosen=0)), to("n3", Reject(B2, B1, 0)))
    bench.later(1)
    bench.receive("n3", Prepare(B2, 1))
    bench.expect(votes=[to("n3", Promise(B2, 1, (), 0))], promise=B2)


def test_rule_17_after_a_restart_a_leader_is_followed_and_gets_no_grant_for_one_lease() -> None:
    bench = Bench(promised=B1, restarted=True)
    bench.receive("n2", Heartbeat(B1, 4, 0))
    bench.expect(to("n2", HeartbeatAck(B1, 4, granted=False, chosen=0, votes=1)))
    assert bench.replica.leader_ballot == B1
    bench.receive("n2", Accept(B1, 1, b"a", 0))
    bench.expect(votes=[to("n2", Accepted(B1, 1))], accepts=[PValue(1, B1, b"a")])


def test_rule_16_a_release_ends_the_grant_and_a_late_copy_ends_no_other() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.receive("n2", ReleaseLease(B1, ""))
    bench.receive("n3", Heartbeat(B2, 1, 0))
    bench.expect(to("n3", HeartbeatAck(B2, 1, granted=True, chosen=0, votes=0)))
    bench.receive("n2", ReleaseLease(B1, ""), PreVote(1, 1))
    bench.expect(to("n2", PreVoteReply(1, willing=False, promised=B1, chosen=0)))


def test_rule_16_a_heartbeat_of_a_second_leader_gets_no_grant_while_the_first_holds() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.receive("n3", Heartbeat(B2, 1, 0))
    bench.expect(to("n3", HeartbeatAck(B2, 1, granted=False, chosen=0, votes=0)))


def test_rule_8_an_accept_of_an_elected_leader_is_taken_under_a_grant_to_another() -> None:
    """A grant forbids promises to candidates. Who sends Accepts was elected: its quorum outlived the other's lease."""
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.receive("n3", Accept(B2, 1, b"a", 0))
    bench.expect(votes=[to("n3", Accepted(B2, 1))], promise=B2, accepts=[PValue(1, B2, b"a")])
    assert bench.replica.leader_ballot == B2


def test_rule_8_an_accepted_ballot_above_the_stored_promise_is_damage() -> None:
    with pytest.raises(InvariantError, match="above the stored promise"):
        Bench(promised=B1, tail=[PValue(1, B2, b"a")])


def test_a_promise_never_goes_down() -> None:
    bench = Bench(promised=B2)
    with pytest.raises(InvariantError, match="would go down"):
        bench.replica._acceptor._promise(B1)
