"""The limits and the reports of restart and snapshot, and plots."""

import importlib.util
from pathlib import Path

import pytest

from bench import plot
from bench.errors import BenchError
from bench.load.recording import summary
from bench.restart import ReplicaStart, RestartResult, restart_report
from bench.snapshot import SnapshotResult, WritePhase, snapshot_report
from tests.unit.bench.reports import shown


def restarts(*seconds: float, resident_mb: float = 500.0) -> RestartResult:
    memory = dict.fromkeys(("n1", "n2"), resident_mb)
    one = [ReplicaStart(each, 2.0) for each in seconds]
    everyone = ReplicaStart(30, 2)
    return RestartResult(keys=1000, value_bytes=9, one=one, all=everyone, filled_mb=memory, restarted_mb=memory)


def test_the_median_start_and_the_largest_memory_have_limits() -> None:
    assert restarts(1, 9, 99).within_limits
    assert not restarts(1, 11, 12).within_limits
    assert not restarts(1, 2, 3, resident_mb=601).within_limits
    assert "ready within 10 s (median 9.0 s)" in shown(restart_report(restarts(1, 9, 99)))


def snapshot(p99_ms: int, *leaders: str) -> SnapshotResult:
    def phase(each_ms: int) -> WritePhase:
        latencies = summary({1000 * each_ms: 100})
        assert latencies is not None
        return WritePhase(10.0, latencies)

    return SnapshotResult(
        mib=100,
        rate=None,
        before=phase(10),
        during=phase(p99_ms),
        after=phase(10),
        leaders=list(leaders),
        errors=0,
        at_rest_mb={},
        max_mb={},
    )


def test_writers_may_notice_a_snapshot_a_little_and_the_leader_stays() -> None:
    assert snapshot(19, "n2", "n2", "n2").within_limits
    assert not snapshot(21, "n2").within_limits
    assert not snapshot(10, "n2", "n1").within_limits
    assert "x p99 without (2.10)" in shown(snapshot_report(snapshot(21, "n2")))


def test_an_impossible_plot_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plot.check_plot(None)
    with pytest.raises(BenchError, match=r"must end in \.svg or \.png"):
        plot.check_plot(Path("x.pdf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BenchError, match="pip install --group bench"):
        plot.check_plot(Path("x.png"))


def test_lines_are_drawn_by_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw_lines(tmp_path / "x.svg", "title", "x", "y", {"a": [(0, 1.0)], "b": [(1, 2.0)]}, log=True)
    assert "<svg" in (tmp_path / "x.svg").read_text()
    plot.draw_lines(tmp_path / "x.png", "title", "x", "y", {"": [(0, 1.0), (1, 2.0)]})
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
