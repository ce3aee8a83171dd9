"""The verdict on a run."""

import msgspec
import pytest

from tests.torture.faults.monitor import StateSpan, extend, leader_changes
from tests.torture.faults.plan import Fault
from tests.torture.faults.result import (
    FaultsResult,
    OutcomeBin,
    RunVerdict,
    count,
    latency_bins,
    outcome_bins,
    report_of,
)
from tests.torture.history import RecordedCall
from tests.unit.torture.faults_results import CLEAN, GOOD, judged, made, result


def test_a_good_run_is_ok() -> None:
    assert (GOOD.verdict, GOOD.reasons()) == (RunVerdict.OK, [])
    assert (GOOD.calls, GOOD.count("answered"), GOOD.acknowledged, GOOD.effective) == (140, 130, 90, 2)


@pytest.mark.parametrize(
    ("run", "verdict", "why"),
    [
        (judged(lost=["put a"]), RunVerdict.LOST, "put a"),
        (judged(illegal=["k"]), RunVerdict.ILLEGAL, "no order explains the answers for k"),
        (judged(backwards=["went back"]), RunVerdict.ILLEGAL, "went back"),
        (result(troubles=["n1 ended"]), RunVerdict.DOWN, "n1 ended"),
        (judged(unverified=["a", "b", "c"]), RunVerdict.UNVERIFIED, "3 of 2000 keys could not be verified"),
        (result(counts={"get": {"answered": 99}}), RunVerdict.VOID, "only 99 calls in 10 s"),
        (result(counts={"get": {"answered": 49, "refused": 99}}), RunVerdict.VOID, "only 49 calls answered in 10 s"),
        (result(faults=[made(Fault.KILL)]), RunVerdict.VOID, "pause was never injected"),
        (
            result(faults=[made(Fault.KILL), made(Fault.PAUSE, effect=0)]),
            RunVerdict.VOID,
            "pause had no effect in 1 attempts",
        ),
        (result(faults=[], asked=[]), RunVerdict.VOID, "no fault had an effect"),
    ],
)
def test_a_run_is_not_good(run: FaultsResult, verdict: RunVerdict, why: str) -> None:
    assert run.verdict is verdict
    assert run.reasons()[0][0] is verdict
    assert why in run.reasons()[0][1]
    assert report_of(run).verdict is verdict


def test_one_key_in_a_thousand_may_stay_unverified() -> None:
    assert judged(unverified=["a", "b"]).verdict is RunVerdict.OK


def test_the_verdict_is_the_worst_of_the_reasons() -> None:
    run = result(
        troubles=["n1 ended"],
        counts={},
        history=msgspec.structs.replace(CLEAN, lost=["a"], illegal=["b"], unverified=["c"]),
    )
    assert run.verdict is RunVerdict.LOST
    assert {verdict for verdict, _ in run.reasons()} >= {
        RunVerdict.LOST,
        RunVerdict.ILLEGAL,
        RunVerdict.DOWN,
        RunVerdict.VOID,
    }


def test_calls_are_counted_when_they_end() -> None:
    calls = [
        RecordedCall("put", "k", "n1", 0, 50_000_000, "answered", "a", 1),
        RecordedCall("put", "k", "n1", 0, 250_000_000, "unknown", "b"),
        RecordedCall("get", "k", "n1", 0, 260_000_000, "refused"),
    ]
    assert outcome_bins(calls, 0) == [OutcomeBin(answered=1), OutcomeBin(), OutcomeBin(unknown=1, refused=1)]
    assert count(calls) == {"put": {"answered": 1, "unknown": 1}, "get": {"refused": 1}}


def test_the_latency_of_a_stretch_without_two_answers_is_not_known() -> None:
    calls = [RecordedCall("get", "k", "n1", 0, 600_000_000 + at, "answered") for at in (0, 2_000_000)]
    (first, second) = latency_bins(calls, 0)
    assert first.p50_ms is None
    assert second.p50_ms == 601.0


def test_statuses_become_spans_of_time() -> None:
    spans: list[StateSpan] = []
    extend(spans, "leader", 0.0, 0.1)
    extend(spans, "leader", 0.2, 0.3)
    extend(spans, "down", 0.5, 0.6)
    assert spans == [StateSpan("leader", 0.0, 0.5), StateSpan("down", 0.5, 0.6)]


def test_a_leader_that_comes_back_is_no_change() -> None:
    assert leader_changes({"n1": [StateSpan("leader", 0, 1), StateSpan("leader", 2, 3)], "n2": []}) == 0
    assert (
        leader_changes(
            {"n1": [StateSpan("leader", 0, 1), StateSpan("leader", 4, 5)], "n2": [StateSpan("leader", 2, 3)]}
        )
        == 2
    )
