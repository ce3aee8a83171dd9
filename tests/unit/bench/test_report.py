import io
from collections.abc import Sequence

import pytest
from rich.console import Console, RenderableType

from bench.failover import Failovers, around, binned
from bench.report import failover_charts, failover_report


def shown(report: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=100, highlight=False, soft_wrap=True).print(report)
    return output.getvalue()


def failovers(*outages_ms: float, lost: Sequence[str] = ()) -> Failovers:
    return Failovers(
        nodes=3,
        clients=4,
        outages_ms=list(outages_ms),
        acknowledged=99,
        unknown=7,
        refused=2,
        lost=list(lost),
        kills_s=[1.5],
        bins=[5] * 15 + [0] * 6 + [5] * 10,
        around=[50.0] * 10 + [0.0] * 6 + [50.0] * 14,
    )


def test_the_failover_report_has_percentiles_histogram_and_writes() -> None:
    text = shown(failover_report(failovers(510.0, 530.0, 710.0)))
    assert "3 kills of the leader of 3 replicas: p50 530 ms, p99 706 ms, max 710 ms" in text
    assert "500 - 600 ms   2" in text
    assert "600 - 700 ms   0" in text
    assert "99 writes of 4 clients acknowledged, 0 lost; 7 of unknown outcome, 2 refused" in text
    assert "within the limit" in text


def test_a_lost_write_is_named() -> None:
    assert "1 LOST, the first of them client-1/7" in shown(failover_report(failovers(1.0, 2.0, lost=["client-1/7"])))


@pytest.mark.parametrize(
    ("outages_ms", "within"),
    [
        ((700, 700, 700), True),
        ((800, 800, 1500), True),
        ((700, 810, 900), False),
        ((700, 700, 1600), False),
    ],
)
def test_both_percentiles_have_a_limit(outages_ms: tuple[float, ...], *, within: bool) -> None:
    found = failovers(*outages_ms)
    assert found.within_limits is within
    assert ("beyond the limit" in shown(failover_report(found))) is not within


def test_writes_are_counted_by_tenths_of_a_second() -> None:
    assert binned([0.01, 0.05, 0.15, 0.41]) == [2, 1, 0, 0, 1]
    assert binned([]) == []


def test_writes_around_kills_are_the_mean_of_all_kills() -> None:
    steady = [0.05 + 0.1 * number for number in range(100)]
    rates = around([time_s for time_s in steady if not 5.0 <= time_s < 5.6], [2.0, 5.0])
    assert len(rates) == 30
    assert rates[:10] == pytest.approx([10] * 10)
    assert rates[10:16] == pytest.approx([5] * 6)
    assert rates[16:] == pytest.approx([10] * 14)


def test_writes_over_time_are_told_and_drawn() -> None:
    found = failovers(600.0, 600.0)
    assert "50 before, then 0 from 0 s on, 0 from 0.2 s on, 0 from 0.4 s on, 50 from 0.6 s on" in shown(
        failover_report(found)
    )
    profile, run = failover_charts(found)
    assert profile.series[0].points[0] == pytest.approx((-0.95, 50.0))
    assert [rate for _, rate in run.series[0].points] == [50, 25, 45]
