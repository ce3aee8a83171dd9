"""What is seen of a replica at work, and that it is bounded."""

from kvstore.api.commands import CommandBatch, Put, pack_batch
from kvstore.server.trace import MOST_MESSAGES, MOST_SLOTS, Trace, TracedMessage, TracedSlot
from paxos.messages import Accept, Accepted, Heartbeat, Promise
from paxos.ready import Envelope, Ready, Write
from paxos.types import NOOP, Ballot, PValue, pack

B = Ballot(3, "n1")
VALUE = pack([pack_batch(CommandBatch("n1", 1, 1, 1, [Put(b"a", b"1"), Put(b"b", b"2")]))])


def test_messages_are_told_in_order_with_what_they_say() -> None:
    trace = Trace()
    trace.received("n2", Accept(B, 7, b"12345", 6))
    trace.stepped(Ready(messages=[Envelope("n3", Accepted(B, 7))]))
    trace.received("n3", Promise(B, 1, (PValue(1, B, b""),), 0))
    glimpse = trace.take()
    assert glimpse.messages == [
        TracedMessage("n2", False, "Accept", {"ballot": "3.n1", "slot": "7", "value": "5 bytes", "chosen": "6"}),
        TracedMessage("n3", True, "Accepted", {"ballot": "3.n1", "slot": "7"}),
        TracedMessage(
            "n3", False, "Promise", {"ballot": "3.n1", "from_slot": "1", "accepted": "1 entries", "next_slot": "0"}
        ),
    ]
    assert glimpse.counts == {"Accept": 1, "Accepted": 1, "Promise": 1}
    assert trace.take().messages == []


def test_of_many_messages_the_first_are_kept_and_all_are_counted() -> None:
    trace = Trace()
    for nonce in range(10 * MOST_MESSAGES):
        trace.received("n2", Heartbeat(B, nonce, 0))
    glimpse = trace.take()
    assert [message.says["nonce"] for message in glimpse.messages] == [str(nonce) for nonce in range(MOST_MESSAGES)]
    assert glimpse.counts == {"Heartbeat": 10 * MOST_MESSAGES}


def test_a_slot_is_accepted_and_then_applied() -> None:
    trace = Trace()
    trace.stepped(Ready(write=Write(accepts=[PValue(7, B, VALUE)])))
    assert trace.take().slots == [TracedSlot(7, "accepted", "3.n1", 2, len(VALUE))]
    trace.stepped(Ready(chosen=[(7, VALUE), (8, NOOP), (9, b"what another release made")]))
    seen = trace.take().slots
    assert [(slot.slot, slot.state, slot.ballot, slot.commands) for slot in seen] == [
        (7, "applied", "3.n1", 2),
        (8, "applied", "", 0),
        (9, "applied", "", 0),
    ]


def test_only_the_newest_slots_are_kept() -> None:
    trace = Trace()
    trace.stepped(Ready(chosen=[(slot, NOOP) for slot in range(1, 5 * MOST_SLOTS)]))
    assert [slot.slot for slot in trace.take().slots] == list(range(4 * MOST_SLOTS, 5 * MOST_SLOTS))
