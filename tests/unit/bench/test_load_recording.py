"""The operations of a load, and the summary of its answers."""

from collections import Counter

import pytest

from bench.errors import BenchError
from bench.load.options import MIN_DRAWS, LoadOptions, Mix, address_of, draw
from bench.load.recording import Recording, longest_stall_ms, per_second, summary
from tests.unit.bench.reports import MS, START_NS, load


@pytest.mark.parametrize(("reads", "least", "most"), [(0, 0, 0), (30, 0.28, 0.32), (100, 1, 1)])
def test_reads_have_their_share(reads: int, least: float, most: float) -> None:
    operations = draw(Mix(reads=reads, keys=100))
    assert least <= sum(operation < 0 for operation in operations) / len(operations) <= most
    assert {~operation if operation < 0 else operation for operation in operations} == set(range(100))


def test_uniform_keys_are_drawn_equally_often_and_all_are_used() -> None:
    operations = draw(Mix(keys=40_000))
    assert len(operations) == 80_000
    assert len(draw(Mix(keys=10))) == MIN_DRAWS
    assert max(Counter(operations).values()) < 20


def test_zipf_keys_are_drawn_by_their_rank() -> None:
    counts = Counter(draw(Mix(keys=1000, distribution="zipf")))
    total = sum(1 / rank**0.99 for rank in range(1, 1001))
    for rank in (1, 2, 10):
        assert counts[rank - 1] == pytest.approx(MIN_DRAWS / rank**0.99 / total, rel=0.1)


def test_equal_seeds_draw_equal_operations() -> None:
    assert draw(Mix(keys=1000, reads=50, seed=7)) == draw(Mix(keys=1000, reads=50, seed=7))
    assert draw(Mix(keys=1000, reads=50, seed=7)) != draw(Mix(keys=1000, reads=50, seed=8))


def test_an_endpoint_without_a_port_is_refused() -> None:
    assert address_of("http://127.0.0.1:8001") == ("127.0.0.1", 8001)
    for url in ("127.0.0.1:8001", "https://h:1", "ftp://h"):
        with pytest.raises(BenchError, match="is not an endpoint"):
            address_of(url)


def test_a_summary_has_the_percentiles() -> None:
    whole = summary(dict.fromkeys(range(1, 1001), 1))
    assert whole is not None
    assert whole.count == 1000
    found = (whole.p50_ms, whole.p90_ms, whole.p99_ms, whole.p999_ms, whole.max_ms, whole.mean_ms)
    assert found == pytest.approx((0.5, 0.9, 0.99, 0.999, 1.0, 0.5005))
    assert summary({}) is None


def test_throughput_is_that_of_the_measured_time_and_latency_that_of_each_kind() -> None:
    found = load()
    assert found.per_second == 200
    assert found.get is not None
    assert found.put is not None
    assert (found.get.count, found.put.count, found.all.count) == (100, 100, 200)
    assert (found.get.p90_ms, found.get.p99_ms, found.put.p99_ms) == pytest.approx((1, 9, 2), rel=0.01)


def test_warm_up_counts_for_statuses_only() -> None:
    recording = Recording(START_NS, START_NS + 1000 * MS, START_NS + 2000 * MS)
    for since_ms, now_ms, status in ((900, 999, 503), (990, 1001, 200), (1500, 1600, 201), (1900, 2001, 200)):
        recording.answered(1, status, START_NS + since_ms * MS, START_NS + now_ms * MS)
    found = recording.result(LoadOptions(urls=[], seconds=1.0))
    assert found.statuses == {200: 2, 201: 1, 503: 1}
    assert found.all.count == 2
    assert sum(found.bins) == found.per_second == 2
    assert found.errors == 1


def test_latencies_are_taken_once() -> None:
    recording = Recording(START_NS, START_NS, START_NS + 1000 * MS)
    recording.answered(1, 200, START_NS, START_NS + 2 * MS)
    first = recording.take_latencies()
    assert first is not None
    assert first.count == 1
    assert first.max_ms == pytest.approx(2, rel=0.01)
    assert recording.take_latencies() is None


def test_errors_are_lost_requests_and_answers_that_are_not_2xx() -> None:
    assert load(statuses={200: 5, 201: 5, 404: 2, 503: 1}, lost=4).errors == 7


def test_an_open_loop_is_saturated_when_it_gets_too_few_answers() -> None:
    assert [load(rate=rate).saturated for rate in (200.0, 210.0, 220.0, None)] == [False, False, True, False]


def test_a_load_without_an_answer_has_no_result() -> None:
    with pytest.raises(BenchError, match="no request was answered"):
        load(bins=[0, 0])


@pytest.mark.parametrize(
    ("bins", "stall_ms"), [([1, 1], 0), ([0, 1, 0, 0, 0, 1, 0, 0], 30), ([0, 0], 20), ([], 0), ([1, 0], 10)]
)
def test_a_stall_is_as_long_as_its_empty_bins(bins: list[int], stall_ms: float) -> None:
    assert longest_stall_ms(bins) == stall_ms


def test_longer_bins_omit_an_incomplete_one() -> None:
    assert per_second([1] * 10 + [3] * 10 + [9] * 5, 0.1) == [100, 300]
