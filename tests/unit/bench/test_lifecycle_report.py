"""What is within the limits, and what is said of what is not."""

import io

from rich.console import Console, RenderableType

from bench.lifecycle import report
from bench.lifecycle.replicas import Start
from bench.lifecycle.restart import Restarts
from bench.lifecycle.snapshot import Phase, Transfer
from bench.lifecycle.soak import Sample, Soak


def shown(rendered: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=120, highlight=False, soft_wrap=True).print(rendered)
    return output.getvalue()


def restarts(*seconds: float, resident_mb: float = 500.0) -> Restarts:
    memory = dict.fromkeys(("n1", "n2"), resident_mb)
    one = [Start(each, 2.0) for each in seconds]
    return Restarts(
        keys=1000, value_bytes=9, prepared_s=1, filled_mb=memory, one=one, all=Start(30, 2), restarted_mb=memory
    )


def test_the_median_start_and_the_largest_memory_count() -> None:
    assert restarts(1, 9, 99).within_limits
    assert not restarts(1, 11, 12).within_limits
    assert not restarts(1, 2, 3, resident_mb=601).within_limits
    assert "one replica is ready after 9.0 s (median)" in shown(report.restart_report(restarts(1, 9, 99)))


def soak(*sizes_mb: float) -> Soak:
    samples = [
        Sample(10.0 * n, 100.0, {"n1": (size, 4.0), "n2": (1.0, 4.0)}, {"n1": 80.0}) for n, size in enumerate(sizes_mb)
    ]
    return Soak(keys=1, value_bytes=9, connections=4, answered=900, refused=0, samples=samples)


def test_files_are_bounded_when_the_last_third_is_like_the_middle_one() -> None:
    assert soak(1, 10, 40, 42, 44, 46).within_limits
    growing = soak(1, 10, 20, 30, 40, 50)
    assert not growing.within_limits
    assert growing.growth("n2") == 1
    assert "at most 1.59 x of the middle third" in shown(report.soak_report(growing))
    assert "n1 40.0 + 4.0" in report.sample_line(growing.samples[4])


def transfer(p99_ms: float, *ballots: str) -> Transfer:
    rest, busy = Phase(10, 100, 1, 10, 20), Phase(10, 100, 1, p99_ms, 50)
    return Transfer(
        mib=100,
        per_second=None,
        before=rest,
        during=busy,
        after=rest,
        ballots=list(ballots),
        refused=0,
        at_rest_mb={},
        most_mb={},
    )


def test_writers_may_notice_a_little_and_the_leader_stays() -> None:
    assert transfer(20, "1.n2", "2.n2").within_limits
    assert not transfer(21, "1.n2").within_limits
    assert not transfer(10, "1.n2", "2.n1").within_limits
    assert "p99 during: 2.10 x" in shown(report.snapshot_report(transfer(21, "1.n2")))
