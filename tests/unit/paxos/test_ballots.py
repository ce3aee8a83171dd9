from paxos.messages import Accept, Accepted, Heartbeat, Prepare, Promise, Reject
from paxos.types import Ballot, PValue
from tests.unit.paxos.harness import ME, Bench, prepare, to

LOW, HIGH = Ballot(3, "n2"), Ballot(3, "n3")


def test_rule_2_whoever_restarts_under_a_promise_to_itself_begins_a_new_round() -> None:
    assert prepare(Bench(promised=Ballot(3, ME), restarted=True)) == Ballot(4, ME)


def test_rule_7_of_two_ballots_of_one_round_the_lower_is_refused() -> None:
    bench = Bench(promised=HIGH)
    bench.receive("n2", Prepare(LOW, 1), Accept(LOW, 1, b"a", 0), Heartbeat(LOW, 1, 0))
    bench.expect(*[to("n2", Reject(LOW, HIGH, 0))] * 3)


def test_rule_7_of_two_ballots_of_one_round_the_higher_is_a_new_promise() -> None:
    bench = Bench(promised=LOW)
    bench.receive("n3", Prepare(HIGH, 1))
    bench.expect(votes=[to("n3", Promise(HIGH, 1, (), 0))], promise=HIGH)
    bench.receive("n3", Accept(HIGH, 1, b"a", 0))
    bench.expect(votes=[to("n3", Accepted(HIGH, 1))], accepts=[PValue(1, HIGH, b"a")])
