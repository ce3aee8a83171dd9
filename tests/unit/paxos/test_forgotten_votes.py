"""Votes that were counted and that their acceptor knows nothing of: part of its storage is gone, unnoticed (rule 5)."""

import pytest

from paxos.configuration import ConfigurationVersion
from paxos.errors import ForgottenVotesError
from paxos.leader import VOTE_CHECK_ROUNDS
from paxos.messages import Accept, Accepted, Chosen, ForgottenVotes, Heartbeat, HeartbeatAck, Prepare, Promise
from paxos.types import ZERO, Ballot, Configuration, PValue
from tests.unit.paxos.harness import ME, Bench, ack, elect, establish, reign, to

B1, B2, B3 = Ballot(1, "n2"), Ballot(2, "n3"), Ballot(3, "n2")


def told(bench: Bench) -> list[int]:
    """What the leader tells n2 of its forgotten votes."""
    ready = bench.replica.take(bench.now)
    return [one.message.votes for one in ready.messages if isinstance(one.message, ForgottenVotes) and one.to == "n2"]


def answer(ballot: Ballot, nonce: int, votes: int) -> HeartbeatAck:
    return HeartbeatAck(ballot, nonce, granted=True, chosen=0, votes=votes)


def beat(bench: Bench) -> int:
    """The next heartbeats leave; their nonce."""
    bench.ring()
    ready = bench.replica.take(bench.now)
    (nonce,) = {one.message.nonce for one in ready.messages if isinstance(one.message, Heartbeat)}
    return nonce


# The acceptor: what it knows of its own votes


def test_rule_5_an_acceptor_tells_what_it_knows_of_its_votes_for_the_ballot() -> None:
    bench = Bench()
    assert bench.replica._acceptor.votes(B1) == 0
    bench.receive("n2", Prepare(B1, 1))
    assert bench.replica._acceptor.votes(B1) == 1
    bench.receive("n2", Accept(B1, 1, b"a", 0), Accept(B1, 3, b"c", 0), Accept(B1, 2, b"b", 0))
    assert bench.replica._acceptor.votes(B1) == 4
    assert bench.replica._acceptor.votes(B2) == 0
    bench.replica.take(bench.now)
    bench.receive("n2", Heartbeat(B1, 1, 0))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=True, chosen=0, votes=4)))


def test_rule_5_accepting_without_a_promise_before_is_a_vote_too() -> None:
    bench = Bench(promised=B1)
    bench.receive("n3", Accept(B2, 7, b"g", 0))
    assert bench.replica._acceptor.votes(B2) == 8


def test_rule_5_what_was_accepted_under_an_earlier_ballot_is_no_vote_for_this_one() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a"), PValue(2, B1, b"b")])
    assert bench.replica._acceptor.votes(B1) == 3
    bench.receive("n3", Prepare(B2, 1))
    assert bench.replica._acceptor.votes(B2) == 1


def test_rule_5_after_a_restart_it_knows_the_votes_that_it_still_has() -> None:
    tail = [PValue(1, B1, b"a"), PValue(2, B2, b"b"), PValue(3, B1, b"c")]
    assert Bench(promised=B2, tail=tail).replica._acceptor.votes(B2) == 3
    assert Bench(promised=B3, tail=tail).replica._acceptor.votes(B3) == 1


def test_rule_5_a_slot_that_is_chosen_is_accepted_whatever_the_acceptor_holds() -> None:
    """It is cut, or it was learnt: nobody needs the vote any more."""
    bench = Bench(promised=B1, chosen=9)
    assert bench.replica._acceptor.votes(B1) == 10
    bench.receive("n2", Heartbeat(B1, 1, 9), ForgottenVotes(B1, 10))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=True, chosen=9, votes=10)))


# The acceptor: an accusation


@pytest.mark.parametrize("votes", [0, 1, 2, 3])
def test_rule_5_whoever_has_all_the_votes_that_were_counted_has_forgotten_nothing(votes: int) -> None:
    """The accusation is checked again: the answer that it rests on may be older than what is here now."""
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a"), PValue(2, B1, b"b")])
    bench.receive("n2", ForgottenVotes(B1, votes))
    bench.expect()


def test_rule_5_whoever_has_forgotten_votes_must_not_vote_with_the_rest() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a"), PValue(2, B1, b"b")])
    with pytest.raises(ForgottenVotesError, match=r"leader of ballot 1\.n2 counted 4, the storage has 3"):
        bench.receive("n2", ForgottenVotes(B1, 4))


def test_rule_5_a_promise_can_be_forgotten_too() -> None:
    bench = Bench(promised=ZERO)
    with pytest.raises(ForgottenVotesError, match=r"counted 1, the storage has 0"):
        bench.receive("n2", ForgottenVotes(B1, 1))


def test_rule_5_a_late_accusation_under_an_old_ballot_is_no_proof() -> None:
    """What it accepted under the old ballot was replaced since: the log goes far enough."""
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a"), PValue(2, B1, b"b")])
    bench.receive("n3", Accept(B2, 1, b"x", 0), Accept(B2, 2, b"y", 0))
    bench.replica.take(bench.now)
    bench.receive("n2", ForgottenVotes(B1, 3))
    bench.expect()
    with pytest.raises(ForgottenVotesError):
        bench.receive("n2", ForgottenVotes(B1, 4))


# The leader: what it has counted


def test_rule_5_a_leader_tells_an_acceptor_that_has_forgotten_what_it_accepted() -> None:
    bench = Bench()
    ballot = establish(bench)
    nonce = beat(bench)
    bench.receive("n2", answer(ballot, nonce, votes=1))
    bench.expect(to("n2", ForgottenVotes(ballot, 2)))


def test_rule_5_a_leader_tells_an_acceptor_that_has_forgotten_its_promise() -> None:
    bench = Bench()
    ballot = elect(bench)
    bench.receive("n2", answer(ballot, 1, votes=0))
    bench.expect(to("n2", ForgottenVotes(ballot, 1)))


def test_rule_5_an_acceptor_that_is_told_so_gives_no_lease() -> None:
    bench = Bench()
    ballot = establish(bench)
    nonce = beat(bench)
    bench.receive("n2", answer(ballot, nonce, votes=1))
    assert bench.replica.lease_until == 0
    bench.receive("n2", answer(ballot, nonce, votes=2))
    assert bench.replica.lease_holds(bench.now)


def test_rule_5_whoever_knows_all_or_more_than_was_counted_is_told_nothing() -> None:
    bench = Bench()
    ballot = establish(bench)
    nonce = beat(bench)
    bench.receive("n2", answer(ballot, nonce, votes=2), answer(ballot, nonce, votes=9))
    bench.expect()


def test_rule_5_an_answer_to_an_earlier_heartbeat_is_compared_with_what_was_counted_before_that() -> None:
    """n2 answered the first heartbeat before it had accepted slot 1. That answer comes last."""
    bench = Bench()
    ballot = establish(bench)
    beat(bench)
    bench.receive("n2", answer(ballot, 2, votes=2), answer(ballot, 1, votes=1))
    bench.expect()
    bench.receive("n2", answer(ballot, 1, votes=0))
    bench.expect(to("n2", ForgottenVotes(ballot, 1)))


def test_rule_5_a_vote_that_was_counted_after_the_heartbeat_left_accuses_nobody() -> None:
    bench = Bench()
    ballot = reign(bench)
    nonce = beat(bench)
    bench.replica.propose((b"a",))
    bench.replica.take(bench.now)
    bench.receive("n2", Accepted(ballot, 2), answer(ballot, nonce, votes=2))
    assert told(bench) == []
    nonce = beat(bench)
    bench.receive("n2", answer(ballot, nonce, votes=2))
    assert told(bench) == [3]


def test_rule_5_votes_that_are_counted_out_of_order_are_counted_by_the_highest() -> None:
    bench = Bench()
    ballot = reign(bench)
    for payload in (b"a", b"b"):
        bench.replica.propose((payload,))
        bench.replica.take(bench.now)
    bench.receive("n2", Accepted(ballot, 3), Accepted(ballot, 2))
    nonce = beat(bench)
    bench.receive("n2", answer(ballot, nonce, votes=3))
    assert told(bench) == [4]


def test_rule_5_an_answer_that_comes_too_late_or_to_no_heartbeat_accuses_nobody() -> None:
    bench = Bench()
    ballot = establish(bench)
    first = beat(bench)
    for _ in range(VOTE_CHECK_ROUNDS - 1):
        nonce = beat(bench)
        bench.receive("n2", answer(ballot, nonce, votes=2))
    bench.receive("n2", answer(ballot, first, votes=0))
    assert told(bench) == [2]
    beat(bench)
    bench.receive("n2", answer(ballot, first, votes=0), answer(ballot, 9999, votes=0))
    assert told(bench) == []


def test_rule_5_an_answer_under_another_ballot_accuses_nobody() -> None:
    bench = Bench()
    establish(bench)
    beat(bench)
    bench.receive("n2", answer(Ballot(0, ME), 2, votes=0))
    bench.expect()


def test_rule_28_who_may_have_a_new_disk_has_forgotten_nothing() -> None:
    """The votes that were counted in its name are those of the old one. So it is with the heartbeats that left
    before the change was known: their answers may be of either disk."""
    bench = Bench(nodes=4)
    ballot = elect(bench)
    bench.durable()
    for peer in ("n2", "n3", "n4"):
        bench.receive(peer, Promise(ballot, 1, (), 0), Accepted(ballot, 1))
    bench.expect(*bench.to_all(Chosen(ballot, 1)), chosen=[(1, b"")])
    before = beat(bench)
    configuration = Configuration((ME, "n3", "n4"), learners=("n2",), unverified=("n2",))
    bench.replica.reconfigure(ConfigurationVersion(40, configuration), bench.now)
    after = beat(bench)
    bench.receive("n2", answer(ballot, before, votes=0), answer(ballot, after, votes=0))
    assert told(bench) == []
    bench.receive("n3", ack(ballot, after), answer(ballot, after, votes=1))
    assert [one for one in bench.replica.take(bench.now).messages if isinstance(one.message, ForgottenVotes)] == [
        to("n3", ForgottenVotes(ballot, 2))
    ]


def test_rule_5_leader_and_acceptor_agree_however_answers_are_reordered() -> None:
    """Both ends at work: no order in which the answers of a sound acceptor arrive accuses it."""
    leader, acceptor = Bench(), Bench()
    ballot = establish(leader)
    acceptor.receive(ME, Prepare(ballot, 1), Accept(ballot, 1, b"", 0))
    answers = []
    for number in range(2, 8):
        leader.replica.propose((b"%d" % number,))
        sent = [one.message for one in leader.replica.take(leader.now).messages if one.to == "n2"]
        leader.ring()
        sent += [one.message for one in leader.replica.take(leader.now).messages if one.to == "n2"]
        acceptor.receive(ME, *sent)
        ready = acceptor.replica.take(acceptor.now)
        answers += [one.message for one in ready.messages]
        votes = ready.write.votes if ready.write is not None else []
        leader.receive("n2", *[vote.message for vote in votes])
    assert len([one for one in answers if isinstance(one, HeartbeatAck)]) == 6
    leader.receive("n2", *reversed(answers), *answers)
    assert told(leader) == []
