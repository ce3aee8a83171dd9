"""What is within the limits, and what is said of what is not."""

import io

import msgspec
from rich.console import Console, RenderableType

from bench.faults.history import Judgement
from bench.lifecycle import report
from bench.lifecycle.churn import Change, Churn, What
from bench.lifecycle.clients import Failure
from bench.lifecycle.crashes import Crash, Crashes
from bench.lifecycle.damage import Damages, Flip, Outcome
from bench.lifecycle.replicas import Start
from bench.lifecycle.restart import Restarts
from bench.lifecycle.snapshot import Phase, Transfer
from bench.lifecycle.soak import Sample, Soak

CLEAN = Judgement(keys=9, silent=[], illegal=[], backwards=[], lost=[])
LOST = msgspec.structs.replace(CLEAN, lost=["put k1 [by n2]"])


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


def test_a_flip_that_needs_a_hand_is_beyond_the_limit_and_told_of() -> None:
    fine = [Flip("kvstore.db", 99, 5, outcome) for outcome in (Outcome.FOUND, Outcome.HARMLESS)]
    assert Damages(seed=3, flips=fine, acknowledged=1, reads=2).within_limits
    refused = Damages(
        seed=3, flips=[*fine, Flip("kvstore.db", 99, 7, Outcome.REFUSED, "[why]")], acknowledged=1, reads=2
    )
    assert not refused.within_limits
    assert "refused: bit 7 of kvstore.db (99 B): [why]" in shown(report.damage_report(refused))
    assert "--flips 3 --seed 3" in shown(report.damage_report(refused))


def test_crashes_are_counted_by_what_they_met() -> None:
    found = Crashes(
        seed=1,
        crashes=[Crash("n1", ["cutting", "installing"]), Crash("n2", []), Crash("n3", ["installing"])],
        acknowledged=5,
        judgement=CLEAN,
        migrated_keys=4,
        troubles=[],
    )
    assert found.within_limits
    assert found.count("installing") == 2
    assert not msgspec.structs.replace(found, troubles=["n1 ended by itself"]).within_limits
    lost = msgspec.structs.replace(found, judgement=LOST)
    assert not lost.within_limits
    assert "put k1 [by n2]" in shown(report.crashes_report(lost))


def test_a_write_that_fails_without_a_fault_is_beyond_the_limit() -> None:
    found = Churn(
        seed=1,
        changes=[Change(What.ADD, "n4", None, 2.5), Change(What.REMOVE, "n1", "n2", 7.5)],
        acknowledged=5,
        failures=2,
        unexcused=[],
        judgement=CLEAN,
        troubles=[],
    )
    assert found.within_limits
    assert (found.count(What.ADD, with_kill=False), found.count(What.REMOVE, with_kill=False)) == (1, 0)
    failed = msgspec.structs.replace(found, unexcused=[Failure("k1", 0, 1, "unknown at n1")])
    assert not failed.within_limits
    text = shown(report.churn_report(failed))
    assert "the slowest was to remove n1, 7.5 s" in text
    assert "k1 unknown at n1" in text
