"""The reports of load, sweep, batch and endurance."""

import re

import msgspec
import pytest

from bench.batch import BatchResult, batch_report
from bench.cluster import ClusterTarget
from bench.endurance import EnduranceResult, FileSample, endurance_report
from bench.errors import BenchError
from bench.load.command import SweepResult, load_report, sweep_report
from tests.unit.bench.reports import load, shown


def test_the_report_of_a_load_has_a_row_for_each_kind() -> None:
    text = shown(load_report(load()))
    assert "closed loop, 4 connections, 50 % GET, 10,000 keys (uniform), values of 100 bytes: 200 answers per" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["PUT", "100", "2.00", "2.00", "2.00", "2.00", "2.00", "2.00"] in rows
    assert [row[0] for row in rows if row and row[0] in {"PUT", "GET", "all"}] == ["PUT", "GET", "all"]
    assert not re.search("errors|saturated|limit", text)


def test_doubtful_figures_are_named() -> None:
    bad = msgspec.structs.replace(load(rate=1000.0), statuses={200: 9, 503: 3}, lost=2, unsent=7, generator_cpu=0.9)
    text = shown(load_report(bad))
    assert "5 errors: 2 requests without an answer, answers by status {503: 3}" in text
    assert "saturated: 200 of 1,000 requests per second answered, 7 not sent" in text
    assert "the generator used 90% of a core and may be the bottleneck" in text


def test_a_sweep_names_the_rate_that_the_store_sustains() -> None:
    steps = [load(rate=100.0), load(rate=200.0), load(rate=400.0)]
    text = shown(sweep_report(SweepResult(closed=load(), steps=steps)))
    rows = [line.split() for line in text.splitlines()]
    assert ["200", "200", "2.00", "2.00", "9.00", "9.00", "9.00", "0"] in rows
    assert ["400", "200", "2.00", "2.00", "9.00", "9.00", "9.00", "0", "saturated"] in rows
    assert "sustains 200 requests per second in an open loop, 200 in a closed loop of 4 connections" in text


def test_a_batch_counts_puts_and_not_transactions() -> None:
    result = BatchResult(size=100, loads={2: [load(), load(bins=[4] * 100)], 4: [load(bins=[1] * 100, lost=1)]})
    assert (result.best, result.errors) == (30_000, 1)
    rows = [line.split()[:4] for line in shown(batch_report(result)).splitlines()]
    assert ["2", "30,000", "20,000", "40,000"] in rows


@pytest.mark.parametrize(
    ("bins", "limits"),
    [
        ([10] * 300, [True, True]),
        ([10] * 200 + [8] * 100, [False, True]),
        ([10] * 100 + [0] * 11 + [10] * 189, [True, False]),
    ],
)
def test_endurance_compares_the_last_span_with_the_first_and_looks_for_stalls(
    bins: list[int], limits: list[bool]
) -> None:
    samples = [FileSample(float(at), 10.0, 90.0) for at in range(6)]
    result = EnduranceResult(load=load(bins=bins), span_s=1.0, samples=samples)
    assert [*result.limits.values()] == [*limits, True]
    text = shown(endurance_report(result))
    assert text.count("not met") == limits.count(False)
    assert ["0", "1", "1,000", "10", "90"] in [line.split() for line in text.splitlines()]


def test_files_are_bounded_when_the_last_third_is_like_the_middle_third() -> None:
    def growth(*sizes_mb: float) -> float:
        samples = [FileSample(float(at), size_mb, 90.0) for at, size_mb in enumerate(sizes_mb)]
        return EnduranceResult(load=load(), span_s=0.3, samples=samples).growth

    assert growth(1, 10, 40, 42, 44, 46) == pytest.approx(46 / 42)
    assert growth(1, 10, 20, 30, 40, 50) == pytest.approx(50 / 30)


def test_connections_go_to_the_leader_to_one_follower_or_to_all() -> None:
    target = ClusterTarget(["a", "b", "c"], "b")
    assert (target.at("leader"), target.at("follower"), target.at("all")) == (["b"], ["a"], ["a", "b", "c"])
    with pytest.raises(BenchError, match="needs the endpoint of a follower"):
        ClusterTarget(["a"], "a").at("follower")
