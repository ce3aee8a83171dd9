from paxos.messages import (
    Accepted,
    Chosen,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Prepare,
    PreVoteReply,
    Promise,
    ReadIndex,
    ReadIndexReply,
)
from paxos.reads import ReadIndexTracker
from paxos.ready import ReadReady
from paxos.types import MS, NOOP, Ballot, PValue, pack
from tests.unit.paxos.harness import ME, START, Bench, ack, expect_accepts, pre_vote, reign, to

A = pack([b"a"])
RETRY = 200 * MS


def requests(*, quorum: bool = False) -> ReadIndexTracker:
    reads = ReadIndexTracker(RETRY)
    reads.begin(1, START, quorum=quorum)
    return reads


def test_a_new_read_is_asked_for_at_once_and_again_when_no_answer_comes() -> None:
    reads = requests(quorum=True)
    assert reads.next_deadline() == START
    assert reads.due(START) == [(1, True)]
    assert reads.next_deadline() == START + RETRY
    assert reads.due(START + RETRY - 1) == []
    assert reads.due(START + RETRY) == [(1, True)]


def test_rule_20_after_a_change_of_leader_all_is_asked_anew() -> None:
    reads = requests()
    reads.due(START)
    reads.leader_changed(START + 1)
    assert reads.due(START + 1) == [(1, False)]


def test_rule_18_a_read_is_released_once_when_its_index_is_within_the_chosen_prefix() -> None:
    reads = requests()
    reads.index(1, 5)
    assert reads.due(START) == []
    assert reads.reached(4) == []
    assert reads.reached(5) == [(1, 5, "read_index")]
    assert reads.reached(5) == []
    assert reads.next_deadline() is None


def test_the_way_of_a_read_is_what_was_asked_unless_the_leader_says_otherwise() -> None:
    quorum = requests(quorum=True)
    quorum.index(1, 5)
    assert quorum.reached(5) == [(1, 5, "quorum")]
    own = requests()
    own.index(1, 5, "lease")
    assert own.reached(5) == [(1, 5, "lease")]


def test_rule_18_the_first_index_counts_and_one_that_nobody_asked_for_does_not() -> None:
    reads = requests()
    reads.index(7, 1)
    reads.index(1, 5)
    reads.index(1, 3)
    assert reads.reached(9) == [(1, 5, "read_index")]


def test_a_read_that_nobody_waits_for_is_forgotten_with_or_without_its_index() -> None:
    reads = requests()
    reads.begin(2, START, quorum=False)
    reads.index(2, 5)
    reads.forget(1)
    reads.forget(2)
    reads.forget(3)
    assert reads.due(START) == []
    assert reads.reached(9) == []


# On the leader


def test_rule_18_under_the_lease_a_read_needs_no_message() -> None:
    bench = Bench()
    reign(bench)
    bench.replica.read(1, bench.now, quorum=False)
    bench.expect(reads=[ReadReady(1, 1, "lease")])


def test_rule_18_a_lease_that_ran_out_is_replaced_by_a_quorum_round() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.later(495)
    bench.replica.read(1, bench.now, quorum=False)
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.receive("n2", ack(ballot, 1))
    bench.expect()
    bench.receive("n2", ack(ballot, 2, granted=False))
    bench.expect(reads=[ReadReady(1, 1, "quorum")])


def test_rule_18_a_quorum_read_trusts_no_lease() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.replica.read(1, bench.now, quorum=True)
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.receive("n2", ack(ballot, 2))
    bench.expect(reads=[ReadReady(1, 1, "quorum")])


def test_rule_18_a_read_is_confirmed_by_a_round_that_began_after_it() -> None:
    bench = Bench(nodes=5)
    ballot = reign(bench)
    bench.ring()
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.replica.read(1, bench.now, quorum=True)
    bench.expect(*bench.to_all(Heartbeat(ballot, 3, 1)))
    bench.receive("n2", ack(ballot, 2))
    bench.receive("n3", ack(ballot, 2))
    bench.expect()
    bench.receive("n2", ack(ballot, 3), ack(ballot, 3))
    bench.receive("stranger", ack(ballot, 3))
    bench.expect()
    bench.receive("n4", ack(ballot, 3))
    bench.expect(reads=[ReadReady(1, 1, "quorum")])


def test_rule_18_a_later_round_confirms_a_read_too() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.replica.read(1, bench.now, quorum=True)
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.ring()
    bench.expect(*bench.to_all(Heartbeat(ballot, 3, 1)))
    bench.receive("n3", ack(ballot, 3))
    bench.expect(reads=[ReadReady(1, 1, "quorum")])


def test_rule_18_other_replicas_are_told_how_far_to_apply() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.receive("n2", ReadIndex(7, quorum=False))
    bench.receive("n3", ReadIndex(7, quorum=True), ReadIndex(7, quorum=True))
    bench.expect(to("n2", ReadIndexReply(7, 1)), *bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.receive("n2", ack(ballot, 2))
    bench.expect(to("n3", ReadIndexReply(7, 1)))
    bench.receive("n3", ack(ballot, 2))
    bench.expect()


def test_rule_18_the_index_is_that_of_the_moment_the_round_began_or_later() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.replica.propose((b"a",))
    expect_accepts(bench, ballot, 2, [A])
    bench.durable()
    bench.receive("n2", Accepted(ballot, 2))
    bench.receive("n3", ReadIndex(1, quorum=True))
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 2)), chosen=[(2, A)])
    bench.receive("n2", ack(ballot, 2))
    bench.expect(to("n3", ReadIndexReply(1, 2)))


def test_rule_10_a_leader_that_is_not_established_answers_no_read() -> None:
    """What an earlier leader acknowledged may be in the slots that are still to be chosen again."""
    bench = Bench()
    recovered = PValue(1, Ballot(1, "n2"), b"acknowledged")
    bench.replica._roles.highest_round = 1
    nonce = pre_vote(bench)
    bench.receive("n2", PreVoteReply(nonce, willing=True, promised=Ballot(1, "n2"), chosen=0))
    ballot = Ballot(2, ME)
    bench.expect(votes=[to(ME, Promise(ballot, 1, (), 0)), *bench.to_all(Prepare(ballot, 1))], promise=ballot)
    bench.durable()
    bench.receive("n2", Promise(ballot, 1, (recovered,), 0))
    expect_accepts(bench, ballot, 1, [b"acknowledged", NOOP], before=bench.to_all(Heartbeat(ballot, 1, 0)))
    bench.receive("n2", ack(ballot, 1), ReadIndex(4, quorum=False))
    bench.receive("n3", ReadIndex(5, quorum=True))
    bench.replica.read(6, bench.now, quorum=False)
    bench.expect()
    bench.durable()
    bench.receive("n2", Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, b"acknowledged")])
    bench.receive("n2", Accepted(ballot, 2))
    bench.expect(
        to("n2", ReadIndexReply(4, 2)),
        *bench.to_all(Heartbeat(ballot, 2, 2)),
        chosen=[(2, NOOP)],
        reads=[ReadReady(6, 2, "lease")],
    )
    bench.receive("n2", ack(ballot, 2))
    bench.expect(to("n3", ReadIndexReply(5, 2)))


def test_rule_20_reads_of_a_deposed_leader_are_put_to_the_next_one() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.later(495)
    bench.replica.read(1, bench.now, quorum=False)
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    higher = Ballot(9, "n3")
    bench.receive("n3", Heartbeat(higher, 1, 1))
    bench.expect(
        to("n3", HeartbeatAck(higher, 1, granted=False, chosen=1, votes=0)), to("n3", ReadIndex(1, quorum=False))
    )
    bench.receive("n2", ack(ballot, 2))
    bench.expect()
    bench.receive("n3", ReadIndexReply(1, 2))
    bench.expect()
    bench.receive("n3", Learn((PValue(2, ballot, b"b"),), 2, 0))
    bench.expect(
        accepts=[PValue(2, ballot, b"b")],
        chosen=[(2, b"b")],
        reads=[ReadReady(1, 2, "read_index")],
    )


def test_a_read_that_nobody_waits_for_any_more_is_not_answered() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.replica.read(1, bench.now, quorum=True)
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.replica.forget_read(1)
    bench.receive("n2", ack(ballot, 2))
    bench.expect()


def test_a_read_is_answered_once_whatever_is_repeated() -> None:
    bench = Bench()
    ballot = reign(bench)
    bench.replica.read(1, bench.now, quorum=True)
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.receive("n2", ack(ballot, 2), ack(ballot, 2))
    bench.receive("n3", ack(ballot, 2))
    bench.receive("n2", ReadIndexReply(1, 0))
    bench.expect(reads=[ReadReady(1, 1, "quorum")])
    bench.expect()
