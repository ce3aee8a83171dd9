from random import Random

from hypothesis import given
from hypothesis import strategies as st

from paxos.election import ElectionTimer
from paxos.options import Options
from paxos.types import MS
from tests.unit.paxos.harness import START

OPTIONS = Options(lease_ms=500, election_jitter_ms=80)
UNIT = 80 * MS
seeds = st.integers(0, 2**32)


def election(seed: int) -> ElectionTimer:
    return ElectionTimer(OPTIONS, Random(seed), START)


def in_jitter(due: int, after: int) -> bool:
    return after + UNIT // 8 <= due <= after + UNIT


@given(seeds)
def test_rule_14_the_first_candidacy_comes_at_a_random_moment(seed: int) -> None:
    assert in_jitter(election(seed).due, START)


@given(seeds)
def test_rule_13_nobody_runs_before_the_grant_of_a_living_leader_ends(seed: int) -> None:
    one = election(seed)
    one.leader_seen(START + 1000 * MS)
    assert in_jitter(one.due, START + 1000 * MS)


@given(seeds)
def test_rule_14_whoever_promised_to_another_leaves_it_time(seed: int) -> None:
    one = election(seed)
    one.postpone(START + 1000 * MS)
    assert in_jitter(one.due, START + 1000 * MS + UNIT)


@given(seeds)
def test_rule_14_the_time_left_to_others_doubles_until_one_of_them_leads(seed: int) -> None:
    """Without that, candidates whose phase 1 takes longer outbid each other for ever."""
    one = election(seed)
    for longest in [UNIT, 2 * UNIT, 4 * UNIT, 8 * UNIT, 1000 * MS, 1000 * MS]:
        one.due = START
        one.postpone(START)
        assert START + longest + longest // 8 <= one.due <= START + 2 * longest
    one.leader_seen(START)
    one.postpone(START)
    assert one.due <= START + 2 * UNIT


def test_rule_14_yielding_never_brings_a_candidacy_forward() -> None:
    one = election(1)
    one.leader_seen(START + 10_000 * MS)
    due = one.due
    one.postpone(START)
    assert one.due == due


@given(seeds)
def test_rule_14_the_wait_doubles_with_each_failure_up_to_two_leases(seed: int) -> None:
    one = election(seed)
    for longest in [UNIT, 2 * UNIT, 4 * UNIT, 8 * UNIT, *[1000 * MS] * 30]:
        one.back_off(START)
        assert START + longest // 4 <= one.due <= START + longest


@given(seeds)
def test_rule_14_hearing_a_leader_ends_the_back_off(seed: int) -> None:
    one = election(seed)
    for _ in range(10):
        one.back_off(START)
    one.leader_seen(START)
    one.back_off(START)
    assert one.due <= START + UNIT


def test_rule_14_two_replicas_seldom_run_at_the_same_moment() -> None:
    moments = {election(seed).due for seed in range(100)}
    assert len(moments) > 95


def test_a_successor_runs_at_once() -> None:
    one = election(1)
    one.expire(START)
    assert one.due == START


def test_a_candidacy_gets_twice_the_time_after_each_failure() -> None:
    """Two syncs of the disk lie between the first Prepare and the last Promise: slow disks must elect somebody too."""
    election = ElectionTimer(Options(lease_ms=500), Random(1), 0)
    assert election.candidate_timeout == 500 * MS
    for lease in (2, 4, 8):
        election.back_off(0)
        assert election.candidate_timeout == lease * 500 * MS
    for _ in range(20):
        election.back_off(0)
    assert election.candidate_timeout == 64 * 500 * MS
    election.leader_seen(0)
    assert election.candidate_timeout == 500 * MS
