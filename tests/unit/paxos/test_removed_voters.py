"""A voter that is removed votes on for the slots that were its own to decide; one whose name lives on does not."""

from paxos.configuration import ALPHA, ConfigurationHistory, ConfigurationVersion
from paxos.lease import LeaderLease
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
)
from paxos.types import ZERO, Ballot, Configuration
from tests.unit.paxos.harness import ME, OPTIONS, START, Bench, to

TWO, ONE = Configuration((ME, "n2")), Configuration((ME,))


def reign(bench: Bench) -> Ballot:
    """Win the election and hold a lease."""
    bench.ring()
    answer_all(bench)
    assert bench.replica.lease_holds(bench.now)
    assert bench.replica.leader_ballot is not None
    return bench.replica.leader_ballot


def answer_all(bench: Bench) -> None:
    """The disk and n2 agree to everything, until nothing more happens."""
    while True:
        ready = bench.replica.take(bench.now)
        votes = ready.write.votes if ready.write is not None else []
        if not votes and not ready.messages:
            return
        for receiver, message in [(envelope.to, envelope.message) for envelope in ready.messages + votes]:
            bench.receive(receiver, *(answers(message) if receiver != ME else [message]))


def answers(message: AnyMessage) -> list[AnyMessage]:
    match message:
        case PreVote(nonce=nonce):
            return [PreVoteReply(nonce, willing=True, promised=ZERO, chosen=0)]
        case Prepare(ballot=ballot, from_slot=from_slot):
            return [Promise(ballot, from_slot, (), 0)]
        case Accept(ballot=ballot, slot=slot):
            return [Accepted(ballot, slot)]
        case Heartbeat(ballot=ballot, nonce=nonce, chosen=chosen):
            return [HeartbeatAck(ballot, nonce, granted=True, chosen=chosen, votes=10**9)]
        case _:
            return []


def test_one_of_two_voters_can_be_removed() -> None:
    """A majority of two is both, so the slots up to the change need the vote of the one that leaves."""
    bench = Bench(nodes=2)
    ballot = reign(bench)
    assert bench.replica.propose((b"change",))
    answer_all(bench)
    first = bench.replica.chosen + ALPHA
    bench.replica.reconfigure(ConfigurationVersion(first, ONE), bench.now)
    answer_all(bench)
    assert bench.replica.chosen == first - 1
    assert bench.replica.propose((b"alone",))
    bench.replica.take(bench.now)
    bench.receive(ME, Accepted(ballot, first))
    bench.replica.take(bench.now)
    assert bench.replica.chosen == first


def test_the_lease_needs_whoever_leaves_until_it_has_left() -> None:
    bench = Bench(nodes=2)
    ballot = reign(bench)
    bench.replica.reconfigure(ConfigurationVersion(bench.replica.chosen + ALPHA, ONE), bench.now)
    assert bench.replica.lease_holds(bench.now)
    bench.later(OPTIONS.lease_ms)
    bench.tick()
    assert not bench.replica.lease_holds(bench.now)
    bench.receive("n2", HeartbeatAck(ballot, 2, granted=True, chosen=0, votes=10**9))
    assert bench.replica.lease_holds(bench.now)


def test_a_name_that_lives_on_without_a_vote_is_not_heard_as_a_voter() -> None:
    """Its disk may be a new one, which knows nothing of the votes of the old one (rule 28)."""
    configurations = ConfigurationHistory(ME, [ConfigurationVersion(1, TWO)])
    configurations.add(ConfigurationVersion(40, Configuration((ME,), learners=("n2",), unverified=("n2",))))
    assert not configurations.is_voter("n2")
    assert not configurations.is_voter("n3")
    removed = ConfigurationHistory(ME, [ConfigurationVersion(1, TWO), ConfigurationVersion(40, ONE)])
    assert removed.is_voter("n2")
    removed.forget_before(40)
    assert not removed.is_voter("n2")


def test_a_grant_of_a_name_that_lives_on_without_a_vote_does_not_count() -> None:
    lease = LeaderLease(OPTIONS, [TWO])
    nonce = lease.begin_round(START)
    for voter in (ME, "n2"):
        lease.answer(voter, nonce, granted=True)
    assert lease.until > START
    lease.reconfigure([TWO, ONE])
    assert lease.until > START
    lease.reconfigure([TWO, Configuration((ME,), learners=("n2",), unverified=("n2",))])
    assert lease.until == 0


def test_a_candidate_that_lost_its_vote_is_promised_nothing() -> None:
    """It does not know of that yet, and it may have a new disk: it would count a vote that knows nothing of the old one
    (rule 28), and choose a second value for a slot that was decided before the change."""
    change = ConfigurationVersion(2 + ALPHA, Configuration((ME, "n2"), learners=("n3",)))
    bench = Bench(nodes=3)
    bench.replica.reconfigure(change, bench.now)
    bench.receive("n3", PreVote(7, 1), Prepare(Ballot(1, "n3"), 1))
    bench.expect(to("n3", unwilling(7)))
    bench.receive("n2", Prepare(Ballot(1, "n2"), 1))
    bench.expect(votes=[to("n2", Promise(Ballot(1, "n2"), 1, (), 0))], promise=Ballot(1, "n2"))


def test_a_witness_is_promised_nothing() -> None:
    bench = Bench(nodes=3)
    bench.replica.reconfigure(
        ConfigurationVersion(2 + ALPHA, Configuration((ME, "n2", "n3"), witnesses=("n3",))), bench.now
    )
    bench.receive("n3", PreVote(7, 1), Prepare(Ballot(1, "n3"), 1))
    bench.expect(to("n3", unwilling(7)))


def unwilling(nonce: int) -> PreVoteReply:
    """The answer to one that may not stand: how it hears, from whoever it still knows, that it lags."""
    return PreVoteReply(nonce, willing=False, promised=ZERO, chosen=0)
