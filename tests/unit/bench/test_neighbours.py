"""The limits and the report of the writer beside its neighbours."""

from bench.load.recording import summary
from bench.neighbours.activities import ALONE
from bench.neighbours.command import NeighbourRow, NeighboursResult, neighbours_report
from tests.unit.bench.reports import shown


def row(
    name: str, p99_ms: float, *, ratio: float = 1.0, leader_changes: int = 0, store: str = "kvstore"
) -> NeighbourRow:
    latencies = summary({int(1000 * p99_ms): 100})
    assert latencies is not None
    return NeighbourRow(
        store=store,
        name=name,
        writer=latencies,
        ratio=ratio,
        leader_changes=leader_changes,
        neighbours=None if name == ALONE else latencies,
        errors=0,
    )


def test_the_latency_its_ratio_and_the_leader_have_limits() -> None:
    assert row("large", 99, ratio=10).within_limits
    assert not row("large", 101, ratio=2).within_limits
    assert not row("large", 50, ratio=11).within_limits
    assert not row("large", 5, leader_changes=1).within_limits


def test_the_limits_are_those_of_kvstore() -> None:
    rows = [row(ALONE, 7), row("locks", 13, ratio=1.9), row("large", 400, ratio=90, store="etcd")]
    report = shown(neighbours_report(NeighboursResult(rows=rows)))
    assert "kvstore: 50 x acquire one lock" in report
    assert "etcd: 16 x PUT of 1 MB" in report
    assert "met: p99 <= 10 x alone and <= 100 ms" in report
