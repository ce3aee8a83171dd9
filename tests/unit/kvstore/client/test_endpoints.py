import pytest

from kvstore.client.endpoints import MAX_BACK_OFF_S, MIN_BACK_OFF_S, TRIAL_EVERY, Endpoints

A, B, C = "http://a", "http://b", "http://c"


class ManualClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(clock: ManualClock | None = None) -> Endpoints:
    return Endpoints([A + "/", B, C], clock or ManualClock())


def test_the_first_order_is_the_given_one() -> None:
    assert made().urls == (A, B, C)
    assert made().in_turn("GET") == [A, B, C]
    with pytest.raises(ValueError, match="at least one"):
        Endpoints([], ManualClock())


def test_a_replica_that_answers_stays_first_until_another_one_is_faster() -> None:
    endpoints = made()
    endpoints.answered(A, "GET", 0.004)
    assert endpoints.ranked("GET")[0] == A
    endpoints.answered(B, "GET", 0.001)
    assert endpoints.ranked("GET") == [B, A, C]


def test_one_slow_answer_does_not_outweigh_many_fast_ones() -> None:
    endpoints = made()
    for _ in range(10):
        endpoints.answered(A, "GET", 0.001)
    endpoints.answered(B, "GET", 0.003)
    endpoints.answered(A, "GET", 0.008)
    assert endpoints.ranked("GET")[0] == A
    for _ in range(5):
        endpoints.answered(A, "GET", 0.008)
    assert endpoints.ranked("GET")[0] == B


def test_reads_and_writes_are_measured_separately() -> None:
    endpoints = made()
    endpoints.answered(B, "GET", 0.001)
    endpoints.answered(A, "PUT", 0.005)
    assert endpoints.ranked("GET")[0] == B
    assert endpoints.ranked("PUT")[0] == A


def test_the_replica_with_the_oldest_measurement_is_tried_now_and_then() -> None:
    endpoints = made()
    endpoints.answered(C, "GET", 0.003)
    firsts = []
    for _ in range(3 * TRIAL_EVERY):
        first = endpoints.in_turn("GET")[0]
        firsts.append(first)
        endpoints.answered(first, "GET", {A: 0.002, B: 0.004, C: 0.001}[first])
    assert firsts.count(A) == 2
    assert firsts.index(A) == TRIAL_EVERY - 1
    assert firsts.count(B) == 1
    assert set(firsts[2 * TRIAL_EVERY : -1]) == {C}


def test_a_replica_that_fails_is_asked_last_for_a_back_off_that_doubles() -> None:
    clock = ManualClock()
    endpoints = made(clock)
    endpoints.answered(A, "GET", 0.001)
    endpoints.failed(A)
    assert endpoints.ranked("GET") == [B, C, A]
    clock.now += MIN_BACK_OFF_S
    assert endpoints.ranked("GET")[0] == A
    endpoints.failed(A)
    clock.now += MIN_BACK_OFF_S
    assert endpoints.ranked("GET")[0] == B
    for _ in range(20):
        endpoints.failed(A)
    clock.now += MAX_BACK_OFF_S
    assert endpoints.ranked("GET")[0] == A
    endpoints.answered(A, "GET", 0.001)
    endpoints.failed(A)
    clock.now += MIN_BACK_OFF_S
    assert endpoints.ranked("GET")[0] == A


def test_a_replica_in_back_off_is_not_tried_and_all_are_asked_if_all_are() -> None:
    clock = ManualClock()
    endpoints = made(clock)
    for url in (A, B, C):
        endpoints.answered(url, "GET", 0.001)
    endpoints.failed(B)
    endpoints.failed(C)
    assert all(endpoints.in_turn("GET")[0] == A for _ in range(3 * TRIAL_EVERY))
    clock.now += 0.1
    endpoints.failed(A)
    assert endpoints.ranked("GET") == [B, C, A]
