"""What a process of the generator is told: keys as they are drawn, requests as they are due."""

from collections import Counter
from itertools import pairwise

import pytest

from bench.load.order import LEAST_DRAWS, Mix, Order, Schedule, draw

SECOND = 1_000_000_000


def order(**changes: object) -> Order:
    return Order(mix=Mix(), addresses=[("127.0.0.1", 1)], connections=1, **changes)  # type: ignore[arg-type]


def due(schedule: Schedule, count: int) -> list[int]:
    instants = []
    for _ in range(count):
        instants.append(schedule.due_ns)
        schedule.advance()
    return instants


def test_requests_are_due_at_even_intervals_from_the_start_on() -> None:
    assert due(Schedule(order(rate=1000.0), 5 * SECOND), 3) == [
        5 * SECOND,
        5 * SECOND + 1_000_000,
        5 * SECOND + 2_000_000,
    ]


def test_the_requests_of_two_processes_stand_between_each_other() -> None:
    first, second = (due(Schedule(order(rate=1000.0, workers=2, worker=number), 0), 3) for number in (0, 1))
    merged = sorted(first + second)
    assert {after - before for before, after in pairwise(merged)} == {1_000_000}


def test_an_uneven_interval_adds_no_error_up() -> None:
    assert due(Schedule(order(rate=3.0), 0), 30_001)[-1] == 10_000 * SECOND


def test_a_closed_loop_has_no_schedule() -> None:
    with pytest.raises(ValueError, match="closed loop"):
        Schedule(order(), 0)


@pytest.mark.parametrize(("reads", "least", "most"), [(0, 0, 0), (30, 0.28, 0.32), (100, 1, 1)])
def test_reads_have_their_share(reads: int, least: float, most: float) -> None:
    operations = draw(Mix(reads=reads, keys=100), 0)
    assert least <= sum(operation < 0 for operation in operations) / len(operations) <= most
    assert {~operation if operation < 0 else operation for operation in operations} == set(range(100))


def test_uniform_keys_come_equally_often_and_all_are_used() -> None:
    operations = draw(Mix(keys=40_000), 0)
    assert len(operations) == 80_000
    assert len(draw(Mix(keys=10), 0)) == LEAST_DRAWS
    assert max(Counter(operations).values()) < 20


def test_of_zipf_keys_the_first_comes_as_often_as_its_rank_says() -> None:
    counts = Counter(draw(Mix(keys=1000, distribution="zipf"), 0))
    total = sum(1 / rank**0.99 for rank in range(1, 1001))
    for rank in (1, 2, 10):
        expected = LEAST_DRAWS / rank**0.99 / total
        assert counts[rank - 1] == pytest.approx(expected, rel=0.1)


def test_processes_draw_each_for_itself_and_a_seed_draws_the_same_again() -> None:
    mix = Mix(keys=1000, reads=50, seed=7)
    assert draw(mix, 0) == draw(mix, 0)
    assert draw(mix, 0) != draw(mix, 1)
