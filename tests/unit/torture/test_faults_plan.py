from itertools import islice

import pytest

from tests.torture.faults.plan import Fault, FaultPlan, Reach, schedule

NAMES = ["n1", "n2", "n3", "n4", "n5"]


def plans(seed: int, count: int = 40) -> list[FaultPlan]:
    return list(islice(schedule(seed, list(Fault), NAMES), count))


def test_the_same_seed_draws_the_same_schedule() -> None:
    assert plans(7) == plans(7)
    assert plans(7) != plans(8)


def test_each_fault_comes_once_before_any_comes_again() -> None:
    drawn = [plan.fault for plan in plans(1, 3 * len(Fault))]
    for begin in range(0, len(drawn), len(Fault)):
        assert set(drawn[begin : begin + len(Fault)]) == set(Fault)


def test_only_the_faults_that_are_asked_for_come() -> None:
    assert {plan.fault for plan in islice(schedule(1, [Fault.EIO, Fault.KILL], NAMES), 10)} == {Fault.EIO, Fault.KILL}


def test_a_pause_outlasts_the_lease() -> None:
    assert all(plan.lasting_s > 0.5 for plan in plans(3, 200) if plan.fault is Fault.PAUSE)


@pytest.mark.parametrize(
    ("reach", "leader_first", "leader", "victims"),
    [
        (Reach.ONE, True, "n4", ("n4",)),
        (Reach.ONE, True, None, ("n1",)),
        (Reach.ONE, False, "n4", ("n1",)),
        (Reach.MINORITY, True, "n4", ("n4", "n1")),
        (Reach.MINORITY, False, "n2", ("n1", "n2")),
        (Reach.ALL, True, "n2", ("n2", "n1", "n3", "n4", "n5")),
    ],
)
def test_victims_are_the_first_in_order_with_the_leader_in_front_where_that_is_planned(
    reach: Reach, leader_first: bool, leader: str | None, victims: tuple[str, ...]
) -> None:
    plan = FaultPlan(
        fault=Fault.KILL,
        hasty=True,
        calm_s=0,
        lasting_s=0,
        reach=reach,
        leader_first=leader_first,
        order=tuple(NAMES),
        outward=True,
        on_write=True,
        delay_ms=0,
        beat_s=0,
    )
    assert plan.victims(leader) == victims
