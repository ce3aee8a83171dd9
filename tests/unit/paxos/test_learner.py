import pytest

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
    PreVoteReply,
    Promise,
    Reject,
)
from paxos.ready import ServeFetch
from paxos.types import MS, Ballot, PValue
from tests.unit.paxos.harness import Bench, to

B1, B2, B3 = Ballot(1, "n2"), Ballot(2, "n3"), Ballot(3, "n2")


def holding(*values: bytes) -> Bench:
    """A replica that accepted these under B1 from slot 1 on; it does not know that any is chosen."""
    return Bench(promised=B1, tail=[PValue(slot, B1, value) for slot, value in enumerate(values, 1)])


def test_rule_12_chosen_comes_with_the_ballot_and_speaks_for_what_was_accepted_under_it() -> None:
    bench = holding(b"a", b"b", b"c")
    bench.receive("n2", Chosen(B1, 2))
    bench.expect(chosen=[(1, b"a"), (2, b"b")])


def test_rule_12_chosen_under_another_ballot_says_nothing_about_the_value_held() -> None:
    bench = holding(b"a")
    bench.receive("n3", Chosen(B2, 1))
    bench.expect(to("n3", Fetch(1)))
    bench.receive("n3", Learn((PValue(1, B2, b"other"),), 1, 0))
    bench.expect(promise=B2, accepts=[PValue(1, B2, b"other")], chosen=[(1, b"other")])


def test_rule_12_a_gap_holds_up_all_that_comes_after_it() -> None:
    bench = Bench(promised=B1, tail=[PValue(1, B1, b"a"), PValue(3, B1, b"c")])
    bench.receive("n2", Chosen(B1, 3))
    bench.expect(to("n2", Fetch(2)), chosen=[(1, b"a")])
    bench.receive("n2", Learn((PValue(2, B1, b"b"),), 3, 0))
    bench.expect(accepts=[PValue(2, B1, b"b")], chosen=[(2, b"b"), (3, b"c")])


def test_rule_12_an_accept_that_comes_after_its_announcement_is_chosen_at_once() -> None:
    bench = Bench(promised=B1)
    bench.receive("n2", Chosen(B1, 1))
    bench.expect(to("n2", Fetch(1)))
    bench.receive("n2", Accept(B1, 1, b"a", 0))
    bench.expect(votes=[to("n2", Accepted(B1, 1))], accepts=[PValue(1, B1, b"a")], chosen=[(1, b"a")])


def test_rule_12_every_message_of_the_leader_carries_the_news() -> None:
    bench = holding(b"a", b"b")
    bench.receive("n2", Heartbeat(B1, 1, 1))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=True, chosen=0, votes=3)), chosen=[(1, b"a")])
    bench.receive("n2", Accept(B1, 3, b"c", 2))
    bench.expect(votes=[to("n2", Accepted(B1, 3))], accepts=[PValue(3, B1, b"c")], chosen=[(2, b"b")])


def test_rule_12_old_news_change_nothing() -> None:
    bench = holding(b"a", b"b")
    bench.receive("n2", Chosen(B1, 2))
    bench.expect(chosen=[(1, b"a"), (2, b"b")])
    bench.receive("n2", Chosen(B1, 1), Chosen(B1, 2))
    bench.expect()


def test_rule_12_a_deposed_leader_may_still_say_what_it_counted() -> None:
    bench = holding(b"a")
    bench.receive("n3", Prepare(B2, 1))
    bench.expect(votes=[to("n3", Promise(B2, 1, (PValue(1, B1, b"a"),), 0))], promise=B2)
    bench.receive("n2", Chosen(B1, 1))
    bench.expect(chosen=[(1, b"a")])


def test_rule_8_a_learnt_value_raises_the_promise_to_its_ballot() -> None:
    """Otherwise an older leader could put another value where this one is."""
    bench = Bench()
    bench.receive("n3", Learn((PValue(1, B2, b"a"),), 1, 0))
    bench.expect(promise=B2, accepts=[PValue(1, B2, b"a")], chosen=[(1, b"a")])
    bench.receive("n2", Accept(B1, 1, b"b", 0))
    bench.expect(to("n2", Reject(B1, B2, 0)))


def test_a_learnt_value_below_the_promise_leaves_the_promise_alone() -> None:
    bench = Bench(promised=B3)
    bench.receive("n3", Learn((PValue(1, B1, b"a"),), 1, 0))
    bench.expect(accepts=[PValue(1, B1, b"a")], chosen=[(1, b"a")])
    assert bench.replica.promised == B3


def test_a_learnt_value_that_is_held_under_a_higher_ballot_is_not_stored_again() -> None:
    bench = Bench(promised=B2, tail=[PValue(1, B2, b"a")])
    bench.receive("n2", Learn((PValue(1, B1, b"a"),), 1, 0))
    bench.expect(chosen=[(1, b"a")])


def test_rule_10_two_values_for_a_chosen_slot_end_the_process() -> None:
    bench = Bench(promised=B2, tail=[PValue(1, B2, b"a")])
    with pytest.raises(InvariantError, match="holds another value of ballot 2"):
        bench.receive("n2", Learn((PValue(1, B1, b"b"),), 1, 0))


def test_what_is_known_to_be_chosen_is_not_learnt_again() -> None:
    bench = Bench(promised=B1, chosen=1, tail=[PValue(1, B1, b"a")])
    bench.receive("n3", Learn((PValue(1, B2, b"a"), PValue(2, B1, b"b")), 2, 0))
    bench.expect(accepts=[PValue(2, B1, b"b")], chosen=[(2, b"b")])


def test_learnt_slots_may_come_in_any_order() -> None:
    bench = Bench(promised=B1)
    bench.receive("n2", Learn((PValue(2, B1, b"b"),), 0, 0))
    bench.expect(accepts=[PValue(2, B1, b"b")])
    bench.receive("n2", Learn((PValue(1, B1, b"a"),), 0, 0))
    bench.expect(accepts=[PValue(1, B1, b"a")], chosen=[(1, b"a"), (2, b"b")])


def test_a_fetch_that_is_not_answered_goes_to_another_peer() -> None:
    """A link may be cut in one direction only: whoever told of the slots may never hear the question."""
    bench = Bench()
    asked = bench.now
    bench.receive("n2", Chosen(B1, 9))
    bench.expect(to("n2", Fetch(1)))
    assert bench.replica._learner.next_deadline() == asked + 200 * MS
    bench.later(199)
    bench.expect()
    bench.later(1)
    bench.expect(to("n3", Fetch(1)))
    bench.later(200)
    bench.expect(to("n2", Fetch(1)))


def test_a_page_leads_to_the_next_until_nothing_is_missing() -> None:
    bench = Bench(promised=B1)
    bench.receive("n2", Chosen(B1, 2))
    bench.expect(to("n2", Fetch(1)))
    bench.receive("n2", Learn((PValue(1, B1, b"a"),), 2, 0))
    bench.expect(to("n2", Fetch(2)), accepts=[PValue(1, B1, b"a")], chosen=[(1, b"a")])
    bench.receive("n2", Learn((PValue(2, B1, b"b"),), 2, 0))
    bench.expect(accepts=[PValue(2, B1, b"b")], chosen=[(2, b"b")])
    assert bench.replica._learner.next_deadline() is None


def test_a_copy_of_a_page_does_not_double_the_requests() -> None:
    """One request at a time: a page that took longer than the retry, or was copied, must not start a second chain of
    requests, which would grow with every slow page."""
    bench = Bench(promised=B1)
    bench.receive("n2", Chosen(B1, 9))
    bench.expect(to("n2", Fetch(1)))
    page = Learn((PValue(1, B1, b"a"),), 9, 0)
    bench.receive("n2", page)
    bench.expect(to("n2", Fetch(2)), accepts=[PValue(1, B1, b"a")], chosen=[(1, b"a")])
    bench.receive("n2", page)
    bench.expect()


def test_whoever_has_the_longest_prefix_is_asked() -> None:
    bench = Bench()
    bench.receive("n2", Chosen(B1, 1))
    bench.receive("n3", PreVoteReply(0, willing=True, promised=B1, chosen=5))
    bench.receive("n2", Chosen(B1, 2))
    bench.expect(to("n3", Fetch(1)))


def test_rule_11_whoever_is_told_of_a_floor_fetches_what_is_below_it() -> None:
    bench = Bench()
    bench.receive("n3", Reject(B1, B1, 5))
    bench.expect(to("n3", Fetch(1)))


def test_a_fetch_is_served_from_storage_when_there_is_something() -> None:
    bench = Bench(promised=B1, chosen=2, tail=[PValue(2, B1, b"b")])
    bench.receive("n3", Fetch(1))
    bench.expect(fetches=[ServeFetch("n3", 1, 2)])
    bench.receive("n3", Fetch(3))
    bench.expect()


def test_rule_12_what_is_accepted_and_not_known_to_be_chosen_is_served_to_nobody() -> None:
    bench = holding(b"a", b"b", b"c")
    bench.receive("n2", Chosen(B1, 1))
    bench.expect(chosen=[(1, b"a")])
    bench.receive("n3", Fetch(1))
    bench.expect(fetches=[ServeFetch("n3", 1, 1)])
    bench.receive("n3", Fetch(2))
    bench.expect()


def test_caught_up_means_a_leader_and_nothing_missing() -> None:
    bench = Bench(promised=B1)
    assert not bench.replica.caught_up
    bench.receive("n2", Heartbeat(B1, 1, 1))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=True, chosen=0, votes=1)), to("n2", Fetch(1)))
    assert not bench.replica.caught_up
    bench.receive("n2", Learn((PValue(1, B1, b"a"),), 1, 0))
    bench.expect(accepts=[PValue(1, B1, b"a")], chosen=[(1, b"a")])
    assert bench.replica.caught_up


def test_rule_27_a_host_is_given_one_chosen_slot_at_a_time_if_it_asks() -> None:
    bench = holding(b"a", b"b", b"c")
    bench.receive("n2", Chosen(B1, 3))
    assert bench.replica.chosen == 0
    assert bench.replica.next_chosen() == (1, b"a")
    assert bench.replica.chosen == 1
    ready = bench.replica.take(bench.now, applied=0)
    assert ready.chosen == [(1, b"a")]
    assert bench.replica.chosen == 1
    assert [bench.replica.next_chosen(), bench.replica.next_chosen()] == [(2, b"b"), (3, b"c")]
    assert bench.replica.next_chosen() is None
    assert bench.replica.take(bench.now, applied=3).chosen == [(2, b"b"), (3, b"c")]


def test_nothing_is_fetched_that_the_host_has_yet_to_take() -> None:
    bench = holding(b"a", b"b")
    bench.receive("n2", Chosen(B1, 5))
    bench.replica.next_chosen()
    assert bench.replica.take(bench.now, applied=0).messages == []
    bench.replica.next_chosen()
    assert bench.replica.take(bench.now, applied=2).messages == [to("n2", Fetch(3))]
