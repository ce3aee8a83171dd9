from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from paxos.messages import (
    Accept,
    Accepted,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    ReleaseLease,
)
from paxos.ready import ReadReady
from paxos.role import Role
from paxos.types import MS, Ballot, PValue
from tests.unit.paxos.harness import OPTIONS, Bench, elect, follow, pre_vote, reign, to

B1, B2, B3 = Ballot(1, "n2"), Ballot(2, "n3"), Ballot(3, "n2")


def test_a_replica_begins_as_a_follower_of_nobody() -> None:
    replica = Bench(promised=B1).replica
    assert (replica.role, replica.leader_ballot, replica.promised, replica.chosen) == (Role.FOLLOWER, None, B1, 0)
    assert (replica.queued, replica.lease_until, replica.caught_up) == (0, None, False)
    assert not replica.lease_holds(0)


def test_commands_go_to_the_leader_that_is_known_and_nowhere_without_one() -> None:
    bench = Bench(promised=B1)
    assert not bench.replica.propose((b"a",))
    bench.expect()
    follow(bench, B1)
    assert bench.replica.propose((b"a", b"b"))
    bench.expect(to("n2", Propose((b"a", b"b"))))


def test_whoever_knows_a_leader_takes_commands_and_a_leader_as_long_as_it_has_room() -> None:
    bench = Bench(promised=B1)
    assert not bench.replica.accepts_proposals
    follow(bench, B1)
    assert bench.replica.accepts_proposals
    leader = Bench(options=replace(OPTIONS, max_queued_bytes=1))
    reign(leader)
    assert leader.replica.accepts_proposals
    assert leader.replica.propose((b"a",))
    assert not leader.replica.accepts_proposals
    assert not leader.replica.propose((b"b",))


def test_a_proposal_that_reaches_a_replica_that_does_not_lead_is_dropped() -> None:
    """Its origin sees it applied, or repeats it to whoever leads."""
    bench = Bench(promised=B1)
    bench.receive("n3", Propose((b"a",)), ReadIndex(1, quorum=False))
    bench.expect()


def test_a_read_waits_for_a_leader_then_for_its_index() -> None:
    bench = Bench(promised=B1)
    bench.replica.read(1, bench.now, quorum=False)
    bench.expect()
    assert bench.replica.next_deadline() > bench.now
    bench.receive("n2", Heartbeat(B1, 1, 0))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=True, chosen=0, votes=1)), to("n2", ReadIndex(1, quorum=False)))
    bench.receive("n2", ReadIndexReply(1, 1))
    bench.expect()
    bench.receive("n2", Accept(B1, 1, b"a", 1))
    bench.expect(
        votes=[to("n2", Accepted(B1, 1))],
        accepts=[PValue(1, B1, b"a")],
        chosen=[(1, b"a")],
        reads=[ReadReady(1, 1, "read_index")],
    )


def test_a_read_index_that_is_not_answered_is_asked_for_again() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.replica.read(1, bench.now, quorum=True)
    bench.expect(to("n2", ReadIndex(1, quorum=True)))
    asked = bench.now
    assert bench.replica.next_deadline() == asked + 200 * MS
    bench.ring()
    bench.expect(to("n2", ReadIndex(1, quorum=True)))
    assert bench.replica.next_deadline() == asked + 400 * MS


def test_rule_20_when_the_leader_changes_every_pending_read_is_asked_anew() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.replica.read(1, bench.now, quorum=False)
    bench.expect(to("n2", ReadIndex(1, quorum=False)))
    bench.receive("n3", Accept(B2, 1, b"a", 0))
    bench.expect(
        to("n3", ReadIndex(1, quorum=False)),
        votes=[to("n3", Accepted(B2, 1))],
        promise=B2,
        accepts=[PValue(1, B2, b"a")],
    )


def test_rule_20_a_promise_to_a_candidate_ends_the_reign_of_the_leader_that_was_followed() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.later(505)
    bench.receive("n3", Prepare(B2, 1))
    bench.expect(votes=[to("n3", Promise(B2, 1, (), 0))], promise=B2)
    assert bench.replica.leader_ballot is None
    bench.receive("n3", Heartbeat(B2, 1, 0))
    bench.expect(to("n3", HeartbeatAck(B2, 1, granted=True, chosen=0, votes=1)))
    assert bench.replica.leader_ballot == B2


def test_rule_14_whoever_promised_leaves_the_candidate_time_to_lead() -> None:
    bench = Bench(promised=B1)
    bench.receive("n3", Prepare(B2, 1))
    bench.expect(votes=[to("n3", Promise(B2, 1, (), 0))], promise=B2)
    assert bench.replica.next_deadline() > bench.now + 150 * MS


def test_an_older_leader_is_not_followed_again() -> None:
    bench = Bench(promised=B1)
    bench.receive("n2", Heartbeat(B3, 1, 0))
    bench.expect(to("n2", HeartbeatAck(B3, 1, granted=True, chosen=0, votes=0)))
    bench.receive("n2", Heartbeat(B1, 1, 0))
    bench.expect(to("n2", HeartbeatAck(B1, 1, granted=True, chosen=0, votes=1)))
    assert bench.replica.leader_ballot == B3


def test_a_replica_that_ran_follows_nobody_until_it_hears_a_leader() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    assert bench.replica.leader_ballot == B1
    pre_vote(bench)
    assert bench.replica.leader_ballot is None
    assert not bench.replica.propose((b"a",))


def test_a_release_ends_the_reign_for_those_who_followed() -> None:
    bench = Bench(promised=B1)
    follow(bench, B1)
    bench.receive("n2", ReleaseLease(B1, "n3"))
    bench.expect()
    assert bench.replica.leader_ballot is None


def test_a_tick_that_comes_too_early_does_nothing() -> None:
    follower = Bench(promised=B1)
    follower.tick()
    follower.expect()
    leader = Bench()
    reign(leader)
    leader.tick()
    leader.expect()


def test_no_role_asks_to_be_called_again_at_once_and_for_ever() -> None:
    """After a tick at the deadline and a step, the next deadline is later: a host never spins."""
    for bench in (Bench(), Bench(restarted=True), follower_with_a_read_and_a_gap(), leader_with_a_read_and_a_slot()):
        for _ in range(200):
            bench.ring()
            bench.replica.take(bench.now)
            assert bench.replica.next_deadline() > bench.now


def follower_with_a_read_and_a_gap() -> Bench:
    bench = Bench(promised=B1)
    bench.receive("n2", Heartbeat(B1, 1, 5))
    bench.replica.read(1, bench.now, quorum=False)
    return bench


def leader_with_a_read_and_a_slot() -> Bench:
    bench = Bench()
    elect(bench)
    bench.replica.read(1, bench.now, quorum=True)
    bench.replica.propose((b"a",))
    return bench


@given(st.integers(0, 2**32))
def test_rule_14_the_moment_of_a_candidacy_is_drawn_from_the_generator_that_was_handed_in(seed: int) -> None:
    assert Bench(seed=seed).replica.next_deadline() == Bench(seed=seed).replica.next_deadline()
