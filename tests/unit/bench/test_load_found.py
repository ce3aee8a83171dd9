"""The results of several processes as one load."""

import pytest

from bench.errors import BenchError
from bench.load.found import latency, longest_stall_ms, per_second
from bench.load.recording import encoded
from tests.unit.bench.loads import load, result


def test_histograms_of_processes_are_merged() -> None:
    whole = latency([encoded(range(1, 501)), encoded([]), encoded(range(501, 1001))])
    assert whole is not None
    assert whole.count == 1000
    assert whole.p50_ms == pytest.approx(0.5, rel=0.01)
    assert whole.p99_ms == pytest.approx(0.99, rel=0.01)
    assert whole.most_ms == pytest.approx(1.0, rel=0.01)
    assert whole.mean_ms == pytest.approx(0.5005, rel=0.01)


def test_the_histogram_of_a_merged_one_holds_all_of_it() -> None:
    once = latency([encoded([1000] * 3), encoded([2000] * 5)])
    assert once is not None
    twice = latency([once.histogram])
    assert twice == once


def test_nothing_has_no_latency() -> None:
    assert latency([encoded([])]) is None


def test_what_was_too_short_or_too_long_to_be_told_is_counted() -> None:
    whole = latency([encoded([0, 10**10])])
    assert whole is not None
    assert whole.count == 2


def test_throughput_is_of_the_measured_time_and_latency_of_each_kind() -> None:
    found = load(result(), result())
    assert found.per_second == 400  # two processes, of which each answers two in each hundredth after the warm-up
    assert found.get is not None
    assert found.put is not None
    assert (found.get.count, found.put.count, found.all.count) == (200, 200, 400)
    assert found.get.p90_ms == pytest.approx(1, rel=0.01)
    assert found.get.p99_ms == pytest.approx(9, rel=0.01)
    assert found.put.p99_ms == pytest.approx(2, rel=0.01)
    assert found.busiest == 0.5
    assert found.cost_us == pytest.approx(2500)


def test_errors_are_lost_requests_and_answers_that_are_not_2xx() -> None:
    assert load(result(statuses={200: 5, 201: 5, 404: 2, 503: 1}, lost=4)).errors == 7


def test_an_open_loop_is_saturated_when_it_answers_less_than_it_is_asked() -> None:
    assert not load(rate=200.0).saturated
    assert not load(rate=210.0).saturated
    assert load(rate=220.0).saturated
    assert not load().saturated


def test_a_generator_that_is_always_busy_may_be_the_limit() -> None:
    assert not load().limited_by_generator
    assert load(result(cpu_s=0.1), result(cpu_s=0.9)).limited_by_generator


def test_a_load_without_an_answer_is_refused() -> None:
    with pytest.raises(BenchError, match="no request was answered"):
        load(result(get=encoded([]), put=encoded([])))


@pytest.mark.parametrize(
    ("bins", "stall_ms"), [([1, 1], 0), ([0, 1, 0, 0, 0, 1, 0, 0], 30), ([0, 0], 20), ([], 0), ([1, 0], 10)]
)
def test_a_stall_is_as_long_as_its_empty_bins(bins: list[int], stall_ms: float) -> None:
    assert longest_stall_ms(bins) == stall_ms


def test_longer_bins_leave_the_rest_out() -> None:
    assert per_second([1] * 10 + [3] * 10 + [9] * 5, 0.1) == [100, 300]
