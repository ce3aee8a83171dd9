from hypothesis import given
from hypothesis import strategies as st

from paxos.lease import LeaderLease, LeaseGrant
from paxos.messages import Heartbeat
from paxos.options import Options
from paxos.types import MS, Ballot, Configuration
from tests.unit.paxos.harness import ACCEPTOR_LEASE, LEADER_LEASE, OPTIONS, START, Bench, ack, establish

B1, B2, B3 = Ballot(1, "n1"), Ballot(2, "n2"), Ballot(3, "n1")
THREE = [Configuration(("n1", "n2", "n3"))]


def grant(*, restarted: bool = False) -> LeaseGrant:
    return LeaseGrant(OPTIONS, START, restarted=restarted)


def test_a_new_acceptor_refuses_nobody() -> None:
    assert not grant().refuses("n1", START)


def test_rule_15_a_grant_counts_from_receipt_lengthened_by_the_drift_bound() -> None:
    held = grant()
    assert held.renew(B1, START)
    assert held.until == START + ACCEPTOR_LEASE
    assert held.refuses("n2", START + ACCEPTOR_LEASE - 1)
    assert not held.refuses("n2", START + ACCEPTOR_LEASE)


def test_rule_16_under_a_grant_everybody_but_its_holder_is_refused() -> None:
    held = grant()
    held.renew(B1, START)
    assert not held.refuses("n1", START + 1)
    assert held.refuses("n2", START + 1)
    assert not held.renew(B2, START + 1)
    assert held.until == START + ACCEPTOR_LEASE


def test_rule_17_after_a_restart_everybody_is_refused_for_one_lease() -> None:
    held = grant(restarted=True)
    assert all(held.refuses(node, START + ACCEPTOR_LEASE - 1) for node in THREE[0].voters)
    assert not held.renew(B1, START + ACCEPTOR_LEASE - 1)
    assert not any(held.refuses(node, START + ACCEPTOR_LEASE) for node in THREE[0].voters)
    assert held.renew(B1, START + ACCEPTOR_LEASE)


def test_a_release_ends_the_grant_at_once() -> None:
    held = grant()
    held.renew(B1, START)
    held.release(B1, START + 5)
    assert not held.refuses("n2", START + 5)
    assert held.renew(B2, START + 5)


def test_rule_16_a_late_release_ends_no_later_grant() -> None:
    held = grant()
    held.renew(B1, START)
    held.renew(B3, START + 1)
    held.release(B1, START + 2)
    assert held.refuses("n2", START + 2)


def test_rule_16_a_late_heartbeat_of_the_same_node_does_not_make_an_older_ballot_the_holder() -> None:
    held = grant()
    held.renew(B3, START)
    held.renew(B1, START + 1)
    held.release(B1, START + 2)
    assert held.refuses("n2", START + 2)


def test_a_release_never_lengthens_a_grant_that_ended() -> None:
    held = grant()
    held.renew(B1, START)
    held.release(B1, START + 2 * ACCEPTOR_LEASE)
    assert held.until == START + ACCEPTOR_LEASE


def test_rule_15_a_lease_counts_from_the_send_time_of_the_round_shortened_by_the_drift_bound() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    nonce = lease.begin_round(START)
    lease.answer("n1", nonce, granted=True)
    assert lease.until == 0
    lease.answer("n2", nonce, granted=True)
    assert lease.until == START + LEADER_LEASE


def test_rule_15_a_lease_holds_over_the_quorum_th_of_its_acceptors() -> None:
    lease = LeaderLease(OPTIONS, [Configuration(("n1", "n2", "n3", "n4", "n5"))])
    for number, node in enumerate(("n1", "n2", "n3")):
        lease.answer(node, lease.begin_round(START + number * MS), granted=True)
    assert lease.until == START + LEADER_LEASE
    lease.answer("n4", 2, granted=True)
    assert lease.until == START + MS + LEADER_LEASE


def test_rule_16_a_late_answer_extends_only_from_its_own_send_time() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    first, second = lease.begin_round(START), lease.begin_round(START + 100 * MS)
    lease.answer("n1", second, granted=True)
    lease.answer("n2", first, granted=True)
    assert lease.until == START + LEADER_LEASE
    lease.answer("n2", second, granted=True)
    lease.answer("n2", first, granted=True)
    assert lease.until == START + 100 * MS + LEADER_LEASE


def test_rule_16_every_round_has_a_fresh_nonce() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    announced = lease.next_nonce
    nonces = [lease.begin_round(START) for _ in range(3)]
    assert nonces[0] == announced
    assert nonces == sorted(set(nonces))


def test_rule_16_an_answer_to_no_round_changes_nothing() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    lease.answer("n1", 1, granted=True)
    lease.answer("n2", 1, granted=True)
    assert (lease.until, lease.confirmed) == (0, 0)


def test_a_round_that_is_long_over_is_forgotten() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    old = lease.begin_round(START)
    lease.begin_round(START + 2 * LEADER_LEASE)
    assert lease.sent_at(old) == START
    lease.begin_round(START + 2 * LEADER_LEASE + 1)
    assert lease.sent_at(old) is None
    lease.answer("n1", old, granted=True)
    lease.answer("n2", old, granted=True)
    assert (lease.until, lease.confirmed) == (0, 0)


def test_rule_18_an_answer_without_a_grant_confirms_the_leader_but_gives_no_lease() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    nonce = lease.begin_round(START)
    lease.answer("n1", nonce, granted=True)
    lease.answer("n3", nonce, granted=False)
    assert lease.confirmed == nonce
    assert lease.until == 0


def test_rule_9_a_stranger_gives_no_lease() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    nonce = lease.begin_round(START)
    for node in ("n1", "n7", "n8"):
        lease.answer(node, nonce, granted=True)
    assert (lease.until, lease.confirmed) == (0, 0)


@given(
    lease_ms=st.integers(1, 60_000),
    drift_ppm=st.integers(0, 500_000),
    delay=st.integers(0, 10**9),
    leader_rate=st.integers(1_000_000, 1_500_000),
    acceptor_rate=st.integers(1_000_000, 1_500_000),
)
def test_rule_15_a_lease_ends_before_any_grant_it_rests_on_whatever_the_rates(
    lease_ms: int, drift_ppm: int, delay: int, leader_rate: int, acceptor_rate: int
) -> None:
    """Rates are in parts per million of true time; those whose ratio keeps within the bound are tried."""
    if max(leader_rate, acceptor_rate) * 1_000_000 > min(leader_rate, acceptor_rate) * (1_000_000 + drift_ppm):
        return
    options = Options(lease_ms=lease_ms, clock_drift_ppm=drift_ppm)
    # Both ends in true time, times both rates, so that all is in whole numbers.
    lease_ends = options.lease_for_leader * 1_000_000 * acceptor_rate
    grant_ends = options.lease_for_acceptor * 1_000_000 * leader_rate + delay * leader_rate * acceptor_rate
    assert lease_ends <= grant_ends


def test_rule_15_an_answer_that_arrives_late_extends_the_lease_from_when_its_heartbeat_was_sent() -> None:
    bench = Bench()
    ballot = establish(bench)
    sent = bench.now
    bench.ring()
    bench.expect(*bench.to_all(Heartbeat(ballot, 2, 1)))
    bench.later(50)
    bench.receive("n2", ack(ballot, 1))
    bench.expect()
    assert bench.replica.lease_until == sent + LEADER_LEASE


def test_rule_27_a_lease_takes_a_majority_of_each_membership() -> None:
    lease = LeaderLease(OPTIONS, [*THREE, Configuration(("n1", "n2", "n3", "n4"))])
    first, second = lease.begin_round(START), lease.begin_round(START + MS)
    for node, nonce in (("n1", second), ("n2", second)):
        lease.answer(node, nonce, granted=True)
    assert (lease.until, lease.confirmed) == (0, 0)
    lease.answer("n4", first, granted=True)
    assert (lease.until, lease.confirmed) == (START + LEADER_LEASE, first)
    lease.answer("n3", second, granted=True)
    assert (lease.until, lease.confirmed) == (START + MS + LEADER_LEASE, second)


def test_rule_27_the_answers_that_are_there_count_for_the_memberships_that_come() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    nonce = lease.begin_round(START)
    for node in ("n1", "n2", "n4"):
        lease.answer(node, nonce, granted=True)
    assert lease.until == START + LEADER_LEASE
    lease.reconfigure([*THREE, Configuration(("n1", "n2", "n3", "n4"))])
    assert (lease.until, lease.confirmed) == (START + LEADER_LEASE, nonce)
    lease.reconfigure([*THREE, Configuration(("n1", "n3", "n5"))])
    assert (lease.until, lease.confirmed) == (0, 0)
    lease.reconfigure(THREE)
    assert lease.until == START + LEADER_LEASE


def test_rule_28_what_a_silent_voter_answered_before_counts_no_more() -> None:
    lease = LeaderLease(OPTIONS, THREE)
    nonce = lease.begin_round(START)
    for node in ("n1", "n3"):
        lease.answer(node, nonce, granted=True)
    assert lease.confirmed == nonce
    lease.reconfigure([*THREE, Configuration(("n1", "n2"), learners=("n3",), unverified=("n3",))])
    assert (lease.until, lease.confirmed) == (0, 0)
    lease.reconfigure(THREE)
    assert (lease.until, lease.confirmed) == (0, 0)
