"""The synchronous host, with its peers, its disk and its clock played by the test."""

from collections.abc import Callable

import pytest

from kvstore.commands import Bundle, Command, Delete, NotFound, Put, PutResult, Result, pack_bundle, unpack_bundle
from kvstore.node import REPEAT_MS
from kvstore.requests import Consistency, Outcome, ReadAnswer, Reason, Record, Refused
from paxos.messages import (
    Accept,
    Canvass,
    CanvassReply,
    Chosen,
    Fetch,
    Heartbeat,
    Learn,
    Prepare,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Release,
)
from paxos.options import Options
from paxos.ready import Envelope, ServeFetch, Write
from paxos.types import MS, NOOP, Ballot, PValue, Slot, pack, unpack
from storage.base import StorageError
from storage.memory import MemoryStorage
from tests.kvstore.host import B1, TIMEOUT_MS, Host, answers_of_an_acceptor

LINEARIZABLE, QUORUM, STALE = Consistency.LINEARIZABLE, Consistency.QUORUM, Consistency.STALE


def value(*commands: Command, origin: str = "n2", boot: int = 1, sequence: int = 1) -> bytes:
    """The value of a slot with one bundle."""
    return pack([pack_bundle(Bundle(origin, boot, sequence, 1, list(commands)))])


def stored(*values: bytes, chosen: Slot | None = None) -> MemoryStorage:
    """Storage of n1 with these accepted from slot 1 on, after one life."""
    storage = MemoryStorage("test", "n1")
    accepts = [PValue(slot, B1, one) for slot, one in enumerate(values, 1)]
    storage.write([Write(promise=B1, accepts=accepts, chosen=chosen)])
    return storage.reopen()


def record(data: bytes, revision: int = 1, created: int = 1, version: int = 1) -> Record:
    return Record(data, revision, created, version)


def seen(answers: list[ReadAnswer | Refused]) -> list[bytes | None]:
    """The values that were read."""
    values = []
    for answer in answers:
        assert isinstance(answer, ReadAnswer)
        values.append(answer.record.value if answer.record is not None else None)
    return values


def refusal(answers: list[Result | Refused] | list[ReadAnswer | Refused]) -> tuple[Reason, Outcome]:
    (answer,) = answers
    assert isinstance(answer, Refused)
    return answer.reason, answer.outcome


# Writes


def test_a_write_on_the_leader_is_answered_when_it_is_applied_and_not_before() -> None:
    host = Host()
    host.lead()
    answers = host.write(Put(b"k", b"v"))
    accepts = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    assert [type(message) for message in accepts] == [Accept]
    host.sync()
    host.step()
    assert answers == []
    host.receive("n2", *answers_of_an_acceptor(accepts[0]))
    assert answers == []
    host.step()
    assert answers == [PutResult(1, 1)]
    assert host.batches[-1] == 1
    assert host.node.waiting == 0


def test_writes_that_come_together_share_a_slot() -> None:
    host = Host()
    host.lead()
    slots = host.node.applied
    first, second, third = host.write(Put(b"a", b"")), host.write(Put(b"a", b"")), host.write(Delete(b"b"))
    host.settle()
    assert (first, second, third) == ([PutResult(1, 1)], [PutResult(2, 2)], [NotFound(2)])
    assert host.node.applied == slots + 1
    assert host.batches[-1] == 3


def test_a_write_on_a_follower_goes_to_the_leader_and_is_answered_when_it_is_applied_here() -> None:
    host = Host()
    host.follow()
    answers = host.write(Put(b"k", b"v"))
    (envelope,) = host.step()
    assert envelope.to == "n2"
    assert isinstance(envelope.message, Propose)
    (payload,) = envelope.message.payloads
    assert unpack_bundle(payload) == Bundle("n1", 1, 1, 1, [Put(b"k", b"v")])
    host.receive("n2", Accept(B1, 1, pack([payload]), 0))
    host.step()
    assert answers == []
    host.receive("n2", Chosen(B1, 1))
    host.step()
    assert answers == [PutResult(1, 1)]
    assert seen(host.read(b"k", STALE)) == [b"v"]


def test_rule_22_a_write_that_is_repeated_to_a_new_leader_and_ordered_twice_is_applied_and_answered_once() -> None:
    host = Host()
    host.follow()
    answers = host.write(Put(b"k", b"v"))
    (to_first,) = host.step()
    later = Ballot(2, "n3")
    host.receive("n3", Heartbeat(later, 1, 0))
    to_second = [envelope for envelope in host.step() if isinstance(envelope.message, Propose)]
    assert to_second == [Envelope("n3", to_first.message)]
    assert isinstance(to_first.message, Propose)
    repeated = pack(to_first.message.payloads)
    host.receive("n3", Accept(later, 1, repeated, 0), Accept(later, 2, repeated, 0), Chosen(later, 2))
    host.step()
    assert answers == [PutResult(1, 1)]
    assert host.node.machine.revision == 1
    assert host.node.stats.leader_changes == 2


def test_rule_23_a_write_without_a_leader_fails_in_time() -> None:
    host = Host()
    answers = host.write(Put(b"k", b"v"))
    host.step()
    host.later(TIMEOUT_MS - 1)
    assert answers == []
    host.later(1)
    assert refusal(answers) == (Reason.NO_LEADER, Outcome.FAILED)
    assert host.node.waiting == 0


def test_rule_23_a_write_that_left_and_is_not_seen_applied_is_unknown() -> None:
    host = Host()
    host.follow()
    answers = host.write(Put(b"k", b"v"))
    host.step()
    host.later(TIMEOUT_MS)
    assert refusal(answers) == (Reason.TIMEOUT, Outcome.UNKNOWN)


def test_a_bundle_that_is_not_seen_applied_is_sent_again() -> None:
    host = Host()
    host.follow()
    host.write(Put(b"k", b"v"))
    (first,) = host.step()
    host.receive("n2", Heartbeat(B1, 2, 0))
    host.step()
    host.now += REPEAT_MS * MS
    host.receive("n2", Heartbeat(B1, 3, 0))
    host.node.tick()
    assert [envelope for envelope in host.step() if isinstance(envelope.message, Propose)] == [first]


def test_rule_23_too_many_requests_are_refused_before_they_leave_a_trace() -> None:
    host = Host(waiting=2)
    host.write(Put(b"a", b""))
    host.read(b"a")
    assert host.node.waiting == 2
    assert refusal(host.write(Put(b"b", b""))) == (Reason.OVERLOADED, Outcome.FAILED)
    assert refusal(host.read(b"b")) == (Reason.OVERLOADED, Outcome.FAILED)
    assert seen(host.read(b"b", STALE)) == [None]
    assert host.node.waiting == 2


def test_rule_3_votes_for_peers_leave_after_the_write_and_own_ones_count_then() -> None:
    host = Host()
    host.receive("n2", Prepare(B1, 1))
    assert host.step() == []
    host.sync()
    assert host.step() == [Envelope("n2", Promise(B1, 1, (), 0))]
    assert host.step() == []


# Reads


def test_rule_18_a_read_under_the_lease_is_answered_at_once_and_asks_nobody() -> None:
    host = Host()
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
    host = Host()
    host.lead()
    host.sleep_before_reading(2, ms=600)  # between the look at the state and the second look at the clock
    answers = host.read(b"k")
    assert answers == []
    assert Heartbeat in [type(message) for message in host.settle()]
    assert seen(answers) == [None]
    assert host.node.stats.reads == {"quorum": 1}


def test_rule_18_a_read_after_the_lease_ran_out_is_confirmed_by_a_quorum() -> None:
    host = Host()
    ballot = host.lead()
    host.now += 600 * MS
    answers = host.read(b"k")
    heartbeats = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    assert answers == []
    assert [type(message) for message in heartbeats] == [Heartbeat]
    host.receive("n2", *answers_of_an_acceptor(heartbeats[0]))
    host.step()
    assert seen(answers) == [None]
    assert host.node.replica.leading == ballot


def test_a_quorum_read_asks_a_quorum_under_a_lease_too() -> None:
    host = Host()
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
    host = Host()
    host.ring()
    (canvass, *_) = [envelope.message for envelope in host.step() if envelope.to == "n2"]
    host.receive("n2", *answers_of_an_acceptor(canvass))
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
    host = Host()
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
    first = Host(stored(value(Put(b"k", b"old")), chosen=1))
    first.follow()
    first.read(b"k")
    asked = [envelope.message for envelope in first.step() if isinstance(envelope.message, ReadIndex)]
    (question,) = asked
    assert isinstance(question, ReadIndex)
    late = ReadIndexReply(question.token, 1)

    again = Host(first.storage.reopen())
    again.follow()
    answers = again.read(b"k")
    again.step()
    again.receive("n2", late)
    again.step()
    assert answers == []


def test_a_stale_read_is_answered_from_memory_with_its_age() -> None:
    host = Host(stored(value(Put(b"k", b"v")), chosen=1))
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
    host = Host()
    host.lead()
    host.now += 10 * MS
    host.node.hand_over()
    host.step()
    host.now += 30 * MS
    (answer,) = host.read(b"k", STALE)
    assert isinstance(answer, ReadAnswer)
    assert answer.age_ms == 30.0


def test_rule_23_a_read_that_no_leader_answers_fails_in_time_and_late_answers_meet_nobody() -> None:
    host = Host()
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


# Learning, handing over, restarting


def test_a_page_for_a_peer_leaves_with_the_next_step() -> None:
    host = Host(stored(value(Put(b"k", b"v")), chosen=1))
    host.receive("n3", Fetch(1))
    host.step()
    assert host.fetches == [ServeFetch("n3", 1, 1)]
    entries = host.storage.read(1, 1, 1 << 20)
    host.node.fetched("n3", entries)
    assert host.step() == [Envelope("n3", Learn(tuple(entries), 1))]
    host.node.fetched("n3", [])
    assert host.step() == []


def test_a_leader_that_hands_over_says_so_and_requests_go_by_way_of_the_next_one() -> None:
    host = Host()
    ballot = host.lead()
    answers = host.write(Put(b"k", b"v"))
    host.node.hand_over()
    assert Envelope("n2", Release(ballot, "n2")) in host.step()
    assert answers == []
    later = Ballot(ballot.round + 1, "n2")
    host.receive("n2", Heartbeat(later, 1, 0))
    proposed = [envelope.message for envelope in host.step() if isinstance(envelope.message, Propose)]
    assert len(proposed) == 1
    assert isinstance(proposed[0], Propose)
    host.receive("n2", Accept(later, 2, pack(proposed[0].payloads), 0), Chosen(later, 2))
    host.step()
    assert answers == [PutResult(1, 1)]


def test_rule_17_a_node_that_ran_before_waits_before_it_promises_and_a_new_one_does_not() -> None:
    for host, willing in ((Host(), True), (Host(stored()), False)):
        host.receive("n3", Canvass(1, 1))
        (envelope,) = host.step()
        assert isinstance(envelope.message, CanvassReply)
        assert envelope.message.willing == willing


def test_a_restart_applies_what_was_chosen_and_holds_the_rest_for_phase_1() -> None:
    host = Host(stored(value(Put(b"k", b"a")), NOOP, value(Put(b"k", b"b"), sequence=2), chosen=2))
    assert (host.node.applied, host.node.machine.revision) == (2, 1)
    assert seen(host.read(b"k", STALE)) == [b"a"]
    host.now += 506 * MS
    later = Ballot(2, "n3")
    host.receive("n3", Prepare(later, 1))
    host.step()
    host.sync()
    accepted = tuple(host.storage.read(1, 3, 1 << 20))
    assert host.step() == [Envelope("n3", Promise(later, 1, accepted, 0))]


@pytest.mark.parametrize("bounds", [Options(recent_slots=2), Options(recent_bytes=2 * len(value(Put(b"k", b"a"))))])
def test_a_restart_holds_a_bounded_tail_at_hand(bounds: Options) -> None:
    host = Host(stored(*[value(Put(b"k", b"a"), sequence=number) for number in range(1, 6)], chosen=5), options=bounds)
    assert (host.node.applied, host.node.machine.revision) == (5, 5)
    host.now += 506 * MS
    host.receive("n3", Canvass(1, 4), Canvass(2, 3))
    replies = [envelope.message for envelope in host.step()]
    assert [reply.willing for reply in replies if isinstance(reply, CanvassReply)] == [True, False]


class Gapped(MemoryStorage):
    """Storage whose log lost a slot."""

    def __init__(self, lost: Slot) -> None:
        super().__init__("test", "n1")
        self.write([Write(promise=B1, accepts=[PValue(slot, B1, NOOP) for slot in (1, 2, 3)], chosen=3)])
        del self._log[lost]
        self._recovered.promised, self._recovered.chosen, self._recovered.last = self._marks


def test_rule_5_a_log_with_a_gap_is_not_used() -> None:
    with pytest.raises(StorageError, match="gap"):
        Host(Gapped(lost=2))


def test_rule_5_a_log_that_ends_below_what_was_chosen_is_not_used() -> None:
    with pytest.raises(StorageError, match="ends at slot 2, but slots up to 3"):
        Host(Gapped(lost=3))


def test_rule_21_a_payload_that_is_no_bundle_is_passed_over_and_counted() -> None:
    host = Host(stored(pack([b"garbage", *unpack(value(Put(b"k", b"v")))]), chosen=1))
    assert seen(host.read(b"k", STALE)) == [b"v"]
    assert host.node.stats.malformed == 1


# Deadlines


@pytest.mark.parametrize("begin", [Host.lead, Host.follow, Host.step], ids=["leader", "follower", "no leader"])
def test_after_a_tick_and_a_step_the_next_deadline_is_later_and_every_request_ends_in_time(
    begin: Callable[[Host], object],
) -> None:
    host = Host()
    begin(host)
    began = host.now
    writes = host.write(Put(b"k", b"v"))
    reads = host.read(b"k", QUORUM), host.read(b"k", LINEARIZABLE)
    host.step()
    while host.now < began + (TIMEOUT_MS + 1000) * MS:
        assert host.node.next_deadline() > host.now
        host.ring()
        if host.now > began + TIMEOUT_MS * MS:
            assert (len(writes), len(reads[0]), len(reads[1])) == (1, 1, 1)
        host.step()
    assert host.node.waiting == 0


def test_messages_are_counted_by_kind_and_direction() -> None:
    host = Host()
    host.receive("n3", Canvass(1, 1), Canvass(2, 1))
    host.step()
    assert host.node.stats.received == {"Canvass": 2}
    assert host.node.stats.sent == {"CanvassReply": 2}
