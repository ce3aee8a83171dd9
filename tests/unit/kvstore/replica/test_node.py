"""The synchronous host, with its peers, its disk and its clock played by the test."""

from collections.abc import Callable

import pytest

from kvstore.api.commands import CommandBatch, Delete, NotFound, Put, PutResult, unpack_batch
from kvstore.api.errors import Outcome, Reason
from kvstore.replica import disk_load
from kvstore.replica.proposal_queue import REPEAT_MS
from paxos.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    Heartbeat,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Propose,
    Reject,
    ReleaseLease,
)
from paxos.options import Options
from paxos.ready import Envelope, ServeFetch, Write
from paxos.types import MS, NOOP, Ballot, PValue, Slot, pack, unpack
from storage.base import StorageError
from storage.memory import MemoryStorage
from tests.unit.kvstore.replica.host import (
    B1,
    LINEARIZABLE,
    QUORUM,
    STALE,
    TIMEOUT_MS,
    NodeHost,
    answers_of_an_acceptor,
    refusal,
    seen,
    stored,
    value,
)

# Writes


def test_a_write_on_the_leader_is_answered_when_it_is_applied_and_not_before() -> None:
    host = NodeHost()
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
    host = NodeHost()
    host.lead()
    slots = host.node.applied
    first, second, third = host.write(Put(b"a", b"")), host.write(Put(b"a", b"")), host.write(Delete(b"b"))
    host.settle()
    assert (first, second, third) == ([PutResult(1, 1)], [PutResult(2, 2)], [NotFound(2)])
    assert host.node.applied == slots + 1
    assert host.batches[-1] == 3


def test_a_write_on_a_follower_goes_to_the_leader_and_is_answered_when_it_is_applied_here() -> None:
    host = NodeHost()
    host.follow()
    answers = host.write(Put(b"k", b"v"))
    (envelope,) = host.step()
    assert envelope.to == "n2"
    assert isinstance(envelope.message, Propose)
    (payload,) = envelope.message.payloads
    assert unpack_batch(payload) == CommandBatch(host.node.origin, 1, 1, 1, [Put(b"k", b"v")])
    host.receive("n2", Accept(B1, 1, pack([payload]), 0))
    host.step()
    assert answers == []
    host.receive("n2", Chosen(B1, 1))
    host.step()
    assert answers == [PutResult(1, 1)]
    assert seen(host.read(b"k", STALE)) == [b"v"]


def test_rule_22_a_write_that_is_repeated_to_a_new_leader_and_ordered_twice_is_applied_and_answered_once() -> None:
    host = NodeHost()
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
    host = NodeHost()
    answers = host.write(Put(b"k", b"v"))
    host.step()
    host.later(TIMEOUT_MS - 1)
    assert answers == []
    host.later(1)
    assert refusal(answers) == (Reason.NO_LEADER, Outcome.FAILED)
    assert host.node.waiting == 0


def test_rule_23_a_write_that_left_and_is_not_seen_applied_is_unknown() -> None:
    host = NodeHost()
    host.follow()
    answers = host.write(Put(b"k", b"v"))
    host.step()
    host.later(TIMEOUT_MS)
    assert refusal(answers) == (Reason.TIMEOUT, Outcome.UNKNOWN)


def test_a_batch_that_is_not_seen_applied_is_sent_again() -> None:
    host = NodeHost()
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
    host = NodeHost(waiting=2)
    host.write(Put(b"a", b""))
    host.read(b"a")
    assert host.node.waiting == 2
    assert refusal(host.write(Put(b"b", b""))) == (Reason.OVERLOADED, Outcome.FAILED)
    assert refusal(host.read(b"b")) == (Reason.OVERLOADED, Outcome.FAILED)
    assert seen(host.read(b"b", STALE)) == [None]
    assert host.node.waiting == 2


def test_rule_26_what_has_no_room_on_the_leader_waits_and_fails_without_a_trace() -> None:
    host = NodeHost(options=Options(window=1, max_queued_bytes=1))
    host.lead()
    under_way = host.write(Put(b"a", b"1"))
    host.step()
    queued = host.write(Put(b"b", b"2"))
    host.step()
    waiting = host.write(Put(b"c", b"3"))
    host.step()
    assert host.node.replica.queued == 1
    host.later(TIMEOUT_MS)
    assert refusal(waiting) == (Reason.QUEUED, Outcome.FAILED)
    for sent in (under_way, queued):
        assert refusal(sent) == (Reason.TIMEOUT, Outcome.UNKNOWN)


def test_rule_3_votes_for_peers_leave_after_the_write_and_own_ones_count_then() -> None:
    host = NodeHost()
    host.receive("n2", Prepare(B1, 1))
    assert host.step() == []
    host.sync()
    assert host.step() == [Envelope("n2", Promise(B1, 1, (), 0))]
    assert host.step() == []


def test_rule_1_an_accepted_leaves_after_the_write() -> None:
    host = NodeHost()
    host.receive("n2", Accept(B1, 1, NOOP, 0))
    assert host.step() == []
    host.sync()
    assert host.step() == [Envelope("n2", Accepted(B1, 1))]


def test_rule_2_a_prepare_leaves_after_the_write() -> None:
    host = NodeHost()
    host.ring()
    pre_vote = next(envelope.message for envelope in host.step() if envelope.to == "n2")
    host.receive("n2", *answers_of_an_acceptor(pre_vote))
    assert host.step() == []
    host.sync()
    assert host.step() == [Envelope(peer, Prepare(Ballot(1, "n1"), 1)) for peer in ("n2", "n3")]


def test_rule_8_a_promise_outlives_a_restart_though_nothing_was_accepted_under_it() -> None:
    storage = stored(value(Put(b"k", b"v")))
    promised = Ballot(5, "n3")
    storage.write([Write(promise=promised)])
    host = NodeHost(storage.reopen())
    host.receive("n2", Accept(B1, 2, NOOP, 0))
    assert host.step() == [Envelope("n2", Reject(B1, promised, 0))]


# Learning, handing over, restarting


def test_a_page_for_a_peer_leaves_with_the_next_step() -> None:
    host = NodeHost(stored(value(Put(b"k", b"v")), chosen=1))
    host.receive("n3", Fetch(1))
    host.step()
    assert host.fetches == [ServeFetch("n3", 1, 1)]
    entries = host.storage.read(1, 1, 1 << 20)
    host.node.log_page_read("n3", entries)
    assert host.step() == [Envelope("n3", Learn(tuple(entries), 1, 0))]
    host.node.log_page_read("n3", [])
    assert host.step() == []


def test_a_leader_that_hands_over_says_so_and_requests_go_by_way_of_the_next_one() -> None:
    host = NodeHost()
    ballot = host.lead()
    answers = host.write(Put(b"k", b"v"))
    host.node.hand_over()
    assert Envelope("n2", ReleaseLease(ballot, "n2")) in host.step()
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
    for host, willing in ((NodeHost(), True), (NodeHost(stored()), False)):
        host.receive("n3", PreVote(1, 1))
        (envelope,) = host.step()
        assert isinstance(envelope.message, PreVoteReply)
        assert envelope.message.willing == willing


def test_a_restart_applies_what_was_chosen_and_holds_the_rest_for_phase_1() -> None:
    host = NodeHost(stored(value(Put(b"k", b"a")), NOOP, value(Put(b"k", b"b"), sequence=2), chosen=2))
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
    host = NodeHost(
        stored(*[value(Put(b"k", b"a"), sequence=number) for number in range(1, 6)], chosen=5), options=bounds
    )
    assert (host.node.applied, host.node.machine.revision) == (5, 5)
    host.now += 506 * MS
    host.receive("n3", PreVote(1, 4), PreVote(2, 3))
    replies = [envelope.message for envelope in host.step()]
    assert [reply.willing for reply in replies if isinstance(reply, PreVoteReply)] == [True, False]


def test_a_restart_may_hold_nothing_of_what_is_chosen_at_hand() -> None:
    host = NodeHost(stored(value(Put(b"k", b"a")), chosen=1), options=Options(recent_slots=0))
    host.now += 506 * MS
    host.receive("n3", PreVote(1, 1), PreVote(2, 2))
    replies = [envelope.message for envelope in host.step()]
    assert [reply.willing for reply in replies if isinstance(reply, PreVoteReply)] == [False, True]


class Gapped(MemoryStorage):
    """Storage whose log lost a slot."""

    def __init__(self, lost: Slot) -> None:
        super().__init__("test", "n1")
        self.write([Write(promise=B1, accepts=[PValue(slot, B1, NOOP) for slot in (1, 2, 3)], chosen=3)])
        del self._log[lost]
        self._recovered = self.hard_state.recovered(self._recovered.identity, log_bytes=0)


def test_rule_5_a_log_with_a_gap_is_not_used() -> None:
    with pytest.raises(StorageError, match="gap"):
        NodeHost(Gapped(lost=2))


def test_rule_5_a_log_that_ends_below_what_was_chosen_is_not_used() -> None:
    with pytest.raises(StorageError, match="ends at slot 2, but slots up to 3"):
        NodeHost(Gapped(lost=3))


def test_rule_21_a_payload_that_is_no_batch_is_passed_over_and_counted() -> None:
    host = NodeHost(stored(pack([b"garbage", *unpack(value(Put(b"k", b"v")))]), chosen=1))
    assert seen(host.read(b"k", STALE)) == [b"v"]
    assert host.node.malformed == 1


# Deadlines


@pytest.mark.parametrize(
    "begin", [NodeHost.lead, NodeHost.follow, NodeHost.step], ids=["leader", "follower", "no leader"]
)
def test_after_a_tick_and_a_step_the_next_deadline_is_later_and_every_request_ends_in_time(
    begin: Callable[[NodeHost], object],
) -> None:
    host = NodeHost()
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
    host = NodeHost()
    host.receive("n3", PreVote(1, 1), PreVote(2, 1))
    host.step()
    assert host.node.stats.received == {"PreVote": 2}
    assert host.node.stats.sent == {"PreVoteReply": 2}


def test_rule_22_a_result_of_an_earlier_life_answers_no_request_of_this_one() -> None:
    host = NodeHost(stored())
    host.follow()
    answers = host.write(Put(b"k", b"v"))
    host.step()
    host.receive("n2", Accept(B1, 1, value(Delete(b"k"), origin=host.node.origin, boot=1), 0), Chosen(B1, 1))
    host.step()
    assert host.node.applied == 1
    assert answers == []
    host.receive("n2", Accept(B1, 2, value(Put(b"k", b"v"), origin=host.node.origin, boot=2), 1), Chosen(B1, 2))
    host.step()
    assert answers == [PutResult(1, 1)]


def test_rule_28_data_of_another_disk_gives_request_ids_of_its_own() -> None:
    """It counts its boots anew: under the name alone its writes would be taken for old ones."""
    origins = set()
    for incarnation in (1, 2):
        host = NodeHost(MemoryStorage("test", "n1", incarnation))
        host.follow()
        host.write(Put(b"k", b"v"))
        (propose,) = [one.message for one in host.step() if isinstance(one.message, Propose)]
        batch = unpack_batch(propose.payloads[0])
        origins.add(batch.origin)
        assert (batch.boot, batch.sequence) == (1, 1)
    assert len(origins) == 2


def test_rule_26_what_waits_for_a_slow_disk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_load, "MAX_UNSTORED_BYTES", 100)
    host = NodeHost()
    values = [value(Put(b"k", bytes(40)), sequence=number) for number in range(1, 6)]
    host.receive("n2", Heartbeat(B1, 1, 0))
    for slot, each in enumerate(values, 1):
        host.receive("n2", Accept(B1, slot, each, 0))
        host.step()
    waiting = [entry.slot for write in host.writes for entry in write.accepts]
    assert waiting == [1, 2]
    host.sync()
    host.receive("n2", Accept(B1, 3, values[2], 0))
    host.step()
    assert [entry.slot for write in host.writes for entry in write.accepts] == [3]
