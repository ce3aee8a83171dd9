import io
from collections.abc import Sequence

import pytest
from rich.console import Console, RenderableType

from bench.compare import Comparison, Measurement
from bench.failover import Failovers
from bench.report import comparison_report, failover_report
from bench.wrk import Operation


def shown(report: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=100, highlight=False, soft_wrap=True).print(report)
    return output.getvalue()


def failovers(*outages_ms: float, lost: Sequence[str] = ()) -> Failovers:
    return Failovers(
        nodes=3, clients=4, outages_ms=list(outages_ms), acknowledged=99, unknown=7, refused=2, lost=list(lost)
    )


def measurement(store: str, operation: Operation, per_second: float, errors: int = 0) -> Measurement:
    return Measurement(
        store=store,
        operation=operation,
        per_second=per_second,
        p50_ms=1.25,
        p99_ms=9.0,
        cpu_us=80,
        resident_mib=64,
        errors=errors,
    )


def comparison(*puts: tuple[float, float]) -> Comparison:
    measurements: list[Measurement] = []
    for ours, theirs in puts:
        for store, rate in (("kvstore", ours), ("etcd", theirs)):
            measurements += [measurement(store, "put", rate, errors=1), measurement(store, "get", 2 * rate)]
    return Comparison(connections=64, seconds=5, rounds=len(puts), measurements=measurements)


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


def test_ratios_are_of_one_round_each() -> None:
    found = comparison((300, 100), (400, 200), (100, 100))
    assert found.ratios("put") == [3.0, 2.0, 1.0]
    assert found.ratio("put").median == 2.0
    assert found.within_limits
    assert not comparison((149, 100)).within_limits


def test_the_comparison_report_has_a_row_for_each_store_and_operation() -> None:
    text = shown(comparison_report(comparison((3000, 1000), (4000, 2000), (1000, 1000))))
    rows = [line.split() for line in text.splitlines()]
    assert ["kvstore", "put", "3,000", "1,000", "-", "4,000", "1.25", "9.00", "80", "64", "3"] in rows
    assert ["etcd", "get", "2,000", "2,000", "-", "4,000", "1.25", "9.00", "80", "64", "0"] in rows
    assert "put: 2.00 x etcd (1.00 - 3.00); round by round 3.00, 2.00, 1.00" in text
    assert "within the limit" in text
    assert "beyond the limit" in shown(comparison_report(comparison((100, 100))))
