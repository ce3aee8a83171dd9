from paxos.messages import Accepted, Chosen, Fetch
from paxos.outbox import Outbox
from paxos.ready import Envelope, ReadReady, Ready, ServeFetch, Write
from paxos.types import Ballot, PValue

BALLOT = Ballot(1, "n1")


def test_all_that_was_collected_is_handed_out_once() -> None:
    out = Outbox()
    out.send("n2", Fetch(1))
    out.answer_read(7, 1, "lease")
    out.serve_fetch("n3", 1, 2)
    assert out.take() == Ready(
        messages=[Envelope("n2", Fetch(1))],
        reads=[ReadReady(7, 1, "lease")],
        fetches=[ServeFetch("n3", 1, 2)],
    )
    assert out.take() == Ready()


def test_rule_1_a_vote_is_in_the_write_that_it_waits_for_and_not_among_the_messages() -> None:
    out = Outbox()
    out.promise(BALLOT)
    out.accept(PValue(1, BALLOT, b"a"))
    out.vote("n2", Accepted(BALLOT, 1))
    ready = out.take()
    assert ready.messages == []
    assert ready.write == Write(
        promise=BALLOT, accepts=[PValue(1, BALLOT, b"a")], votes=[Envelope("n2", Accepted(BALLOT, 1))]
    )


def test_rule_8_a_vote_without_a_record_waits_for_the_writes_before_it() -> None:
    out = Outbox()
    out.vote("n2", Accepted(BALLOT, 1))
    assert out.take().write == Write(votes=[Envelope("n2", Accepted(BALLOT, 1))])


def test_rule_3_a_message_without_a_vote_waits_for_no_write() -> None:
    out = Outbox()
    out.send("n2", Chosen(BALLOT, 1))
    assert out.take().write is None


def test_a_chosen_prefix_alone_is_no_transaction_and_rides_with_the_next_one() -> None:
    out = Outbox()
    out.choose(1, b"a")
    assert out.take() == Ready(chosen=[(1, b"a")])
    out.choose(2, b"b")
    out.vote("n2", Accepted(BALLOT, 3))
    ready = out.take()
    assert ready.chosen == [(2, b"b")]
    assert ready.write == Write(chosen=2, votes=[Envelope("n2", Accepted(BALLOT, 3))])
    out.vote("n2", Accepted(BALLOT, 3))
    assert out.take().write == Write(votes=[Envelope("n2", Accepted(BALLOT, 3))])


def test_rule_25_a_chosen_prefix_that_was_jumped_to_is_remembered_like_any_other_and_nothing_is_applied() -> None:
    out = Outbox()
    out.skip_to(7)
    assert out.take() == Ready()
    out.choose(8, b"a")
    out.vote("n2", Accepted(BALLOT, 8))
    ready = out.take()
    assert ready.chosen == [(8, b"a")]
    assert ready.write == Write(chosen=8, votes=[Envelope("n2", Accepted(BALLOT, 8))])
