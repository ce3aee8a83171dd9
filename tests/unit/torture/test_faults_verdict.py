"""What a run is called, given what was found in it."""

import msgspec
import pytest

from tests.torture.faults.found import Bin, Found, Verdict, bins, conclude, count, latencies
from tests.torture.faults.history import Call
from tests.torture.faults.plan import Fault
from tests.torture.faults.watch import Span, changes_of_leader, note
from tests.unit.torture.tortured import CLEAN, GOOD, found, judged, strike


def test_a_good_run_is_ok() -> None:
    assert (GOOD.verdict, GOOD.reasons()) == (Verdict.OK, [])
    assert (GOOD.calls, GOOD.of("answered"), GOOD.acknowledged, GOOD.landed) == (140, 130, 90, 2)


@pytest.mark.parametrize(
    ("run", "verdict", "why"),
    [
        (judged(lost=["put a"]), Verdict.LOST, "put a"),
        (judged(illegal=["k"]), Verdict.ILLEGAL, "no order explains the answers for k"),
        (judged(backwards=["went back"]), Verdict.ILLEGAL, "went back"),
        (found(troubles=["n1 ended"]), Verdict.DOWN, "n1 ended"),
        (judged(silent=["a", "b", "c"]), Verdict.UNVERIFIED, "3 of 2000 keys are not verified"),
        (found(counts={"get": {"answered": 99}}), Verdict.VOID, "only 99 calls in 10 s"),
        (found(counts={"get": {"answered": 49, "refused": 99}}), Verdict.VOID, "only 49 calls were answered in 10 s"),
        (found(strikes=[strike(Fault.KILL)]), Verdict.VOID, "pause never landed: the time was over"),
        (
            found(strikes=[strike(Fault.KILL), strike(Fault.PAUSE, effect=0)]),
            Verdict.VOID,
            "pause never landed: 1 times without effect",
        ),
        (found(strikes=[], asked=[]), Verdict.VOID, "nothing was done"),
    ],
)
def test_a_run_is_not_good(run: Found, verdict: Verdict, why: str) -> None:
    assert run.verdict is verdict
    assert run.reasons()[0][0] is verdict
    assert why in run.reasons()[0][1]
    assert conclude(run).verdict is verdict


def test_one_key_in_a_thousand_may_stay_unverified() -> None:
    assert judged(silent=["a", "b"]).verdict is Verdict.OK


def test_the_worst_is_what_it_is_called() -> None:
    run = found(
        troubles=["n1 ended"],
        counts={},
        judgement=msgspec.structs.replace(CLEAN, lost=["a"], illegal=["b"], silent=["c"]),
    )
    assert run.verdict is Verdict.LOST
    assert {verdict for verdict, _ in run.reasons()} >= {Verdict.LOST, Verdict.ILLEGAL, Verdict.DOWN, Verdict.VOID}


def test_calls_are_counted_when_they_end() -> None:
    calls = [
        Call("put", "k", "n1", 0, 50_000_000, "answered", "a", 1),
        Call("put", "k", "n1", 0, 250_000_000, "unknown", "b"),
        Call("get", "k", "n1", 0, 260_000_000, "refused"),
    ]
    assert bins(calls, 0) == [Bin(answered=1), Bin(), Bin(unknown=1, refused=1)]
    assert count(calls) == {"put": {"answered": 1, "unknown": 1}, "get": {"refused": 1}}


def test_the_latency_of_a_stretch_without_two_answers_is_not_known() -> None:
    calls = [Call("get", "k", "n1", 0, 600_000_000 + at, "answered") for at in (0, 2_000_000)]
    (first, second) = latencies(calls, 0)
    assert first.p50_ms is None
    assert second.p50_ms == 601.0


def test_what_a_replica_says_becomes_stretches_of_time() -> None:
    lane: list[Span] = []
    note(lane, "leader", 0.0, 0.1)
    note(lane, "leader", 0.2, 0.3)
    note(lane, "down", 0.5, 0.6)
    assert lane == [Span("leader", 0.0, 0.5), Span("down", 0.5, 0.6)]


def test_a_leader_that_comes_back_is_no_change() -> None:
    assert changes_of_leader({"n1": [Span("leader", 0, 1), Span("leader", 2, 3)], "n2": []}) == 0
    assert changes_of_leader({"n1": [Span("leader", 0, 1), Span("leader", 4, 5)], "n2": [Span("leader", 2, 3)]}) == 2
