"""Reads of the synchronous host, with its peers, its disk and its clock played by the test."""

from kvstore.api.commands import Put
from kvstore.api.errors import Outcome, Reason
from kvstore.api.results import ReadAnswer
from paxos.messages import (
    Accept,
    Fetch,
    Heartbeat,
    Prepare,
    Promise,
    ReadIndex,
    ReadIndexReply,
)
from paxos.types import MS, Ballot, PValue
from tests.unit.kvstore.replica.host import (
    B1,
    QUORUM,
    STALE,
    TIMEOUT_MS,
    NodeHost,
    answers_of_an_acceptor,
    record,
    refusal,
    seen,
    stored,
    value,
)


def test_rule_18_a_read_under_the_lease_is_answered_at_once_and_asks_nobody() -> None:
    host = NodeHost()
    host.lead()
    host.write(Put(b"k", b"v"))
    host.settle()
    sent = host.node.stats.sent.total()
    (answer,) = host.read(b"k")
    assert answer == ReadAnswer(record(b"v"), host.node.applied, revision=1, age_ms=0.0)
    assert host.node.stats.reads == {"lease": 1}
    host.step()
    assert host.node.stats.sent.total() == sent


def test_rule_18_whoever_slept_through_its_lease_while_it_looked_asks_a_quorum() -> None:
    host = NodeHost()
    host.lead()
    host.sleep_before_reading(2, ms=600)  # between the look at the state and the second look at the clock
    answers = host.read(b"k")
    assert answers == []
    assert Heartbeat in [type(message) for message in host.settle()]
    assert seen(answers) == [None]
    assert host.node.stats.reads == {"quorum": 1}


def test_rule_18_a_read_after_the_lease_ran_out_is_confirmed_by_a_quorum() -> None:
    host = NodeHost()
    ballot = host.lead()
    host.now += 600 * MS
    answers = host.read(b"k")
    heartbeats = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    assert answers == []
    assert [type(message) for message in heartbeats] == [Heartbeat]
    host.receive("n2", *answers_of_an_acceptor(heartbeats[0]))
    host.step()
    assert seen(answers) == [None]
    assert host.node.replica.leader_ballot == ballot


def test_a_quorum_read_asks_a_quorum_under_a_lease_too() -> None:
    host = NodeHost()
    host.lead()
    answers = host.read(b"k", QUORUM)
    assert answers == []
    assert Heartbeat in [type(message) for message in host.settle()]
    assert seen(answers) == [None]
    assert host.node.stats.reads == {"quorum": 1}


def test_rule_18_a_new_leader_reads_nothing_before_what_it_recovered_is_applied() -> None:
    """Schedule: n3 led, acknowledged slot 1 and died; n1 is elected and hears of slot 1 in n2's promise. The votes that
    have it chosen anew and the answer to the heartbeat arrive in one turn of the event loop, and a GET behind them,
    before the node takes its step. Chosen is not applied: the answer must not lack the acknowledged write."""
    host = NodeHost()
    host.ring()
    (pre_vote, *_) = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    host.receive("n2", *answers_of_an_acceptor(pre_vote))
    host.step()
    host.sync()
    (prepare,) = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    assert isinstance(prepare, Prepare)
    recovered = PValue(1, Ballot(0, "n3"), value(Put(b"k", b"acknowledged")))
    host.receive("n2", Promise(prepare.ballot, 1, (recovered,), 0))
    messages = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    assert [type(message) for message in messages] == [Heartbeat, Accept, Accept]
    host.sync()
    for message in messages:
        host.receive("n2", *answers_of_an_acceptor(message))
    answers = host.read(b"k")
    host.settle()
    assert seen(answers) == [b"acknowledged"]


def test_a_read_on_a_follower_waits_until_the_index_of_the_leader_is_applied() -> None:
    host = NodeHost()
    host.follow()
    answers = [host.read(b"k"), host.read(b"k")]
    (envelope,) = host.step()
    assert envelope.to == "n2"
    assert isinstance(envelope.message, ReadIndex)
    token = envelope.message.token
    host.receive("n2", ReadIndexReply(token, 1))
    host.step()
    assert answers == [[], []]
    host.receive("n2", Accept(B1, 1, value(Put(b"k", b"v")), 1))
    host.step()
    assert [seen(one) for one in answers] == [[b"v"], [b"v"]]
    assert host.node.stats.reads == {"read_index": 2}


def test_rule_18_an_index_that_an_earlier_life_asked_for_answers_no_read() -> None:
    """Schedule: n1 asks the leader for an index; the answer (slot 1) is on its way when n1 is killed and starts again.
    Meanwhile slot 2 is chosen, and acknowledged by n2. A GET reaches the new n1, which asks under a token of its own;
    now the late answer arrives. It was not meant for this read, and n1 has not applied slot 2."""
    first = NodeHost(stored(value(Put(b"k", b"old")), chosen=1))
    first.follow()
    first.read(b"k")
    asked = [envelope.message for envelope in first.step() if isinstance(envelope.message, ReadIndex)]
    (question,) = asked
    assert isinstance(question, ReadIndex)
    late = ReadIndexReply(question.token, 1)

    again = NodeHost(first.storage.reopen())
    again.follow()
    answers = again.read(b"k")
    again.step()
    again.receive("n2", late)
    again.step()
    assert answers == []


def test_a_stale_read_is_answered_from_memory_with_its_age() -> None:
    host = NodeHost(stored(value(Put(b"k", b"v")), chosen=1))
    (first,) = host.read(b"k", STALE)
    assert first == ReadAnswer(record(b"v"), applied=1, revision=1, age_ms=None)
    host.follow()
    host.receive("n2", Heartbeat(B1, 2, 0))
    host.now += 30 * MS
    host.receive("n3", Fetch(9))
    (second,) = host.read(b"k", STALE)
    assert second == ReadAnswer(record(b"v"), applied=1, revision=1, age_ms=30.0)
    assert host.node.heard == {"n2": host.now - 30 * MS, "n3": host.now}
    assert host.node.stats.reads == {"stale": 2}


def test_whoever_led_heard_the_leader_until_then() -> None:
    host = NodeHost()
    host.lead()
    host.now += 10 * MS
    host.node.hand_over()
    host.step()
    host.now += 30 * MS
    (answer,) = host.read(b"k", STALE)
    assert isinstance(answer, ReadAnswer)
    assert answer.age_ms == 30.0


def test_rule_23_a_read_that_no_leader_answers_fails_in_time_and_late_answers_meet_nobody() -> None:
    host = NodeHost()
    host.follow()
    answers = host.read(b"k")
    (envelope,) = host.step()
    assert isinstance(envelope.message, ReadIndex)
    host.later(TIMEOUT_MS)
    assert refusal(answers) == (Reason.NO_LEADER, Outcome.FAILED)
    host.receive("n2", ReadIndexReply(envelope.message.token, 0))
    host.step()
    assert len(answers) == 1
    assert host.node.waiting == 0
