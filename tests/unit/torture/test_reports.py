"""The verdicts and the reports of damage, crashes and churn."""

import msgspec

from tests.torture.churn import ChangeKind, ChurnResult, MembershipChange, churn_report
from tests.torture.clients import FailedWrite
from tests.torture.crashes import Crash, CrashesResult, crashes_report
from tests.torture.damage import DamageResult, Flip, FlipOutcome, damage_report
from tests.torture.history import HistoryVerdict
from tests.unit.bench.reports import shown

CLEAN = HistoryVerdict(keys=9, unverified=[], illegal=[], backwards=[], lost=[])
LOST = msgspec.structs.replace(CLEAN, lost=["put k1 [by n2]"])


def test_a_flip_that_needs_an_operator_is_reported() -> None:
    fine = [Flip("kvstore.db", 99, 5, outcome) for outcome in (FlipOutcome.DETECTED, FlipOutcome.HARMLESS)]
    assert DamageResult(seed=3, flips=fine, acknowledged=1, reads=2).bad == []
    refused = DamageResult(
        seed=3, flips=[*fine, Flip("kvstore.db", 99, 7, FlipOutcome.REFUSED, "[why]")], acknowledged=1, reads=2
    )
    assert [flip.bit for flip in refused.bad] == [7]
    assert "refused: bit 7 of kvstore.db (99 B): [why]" in shown(damage_report(refused))
    assert "--flips 3 --seed 3" in shown(damage_report(refused))


def test_crashes_are_counted_by_stage() -> None:
    found = CrashesResult(
        seed=1,
        crashes=[Crash("n1", ["truncating", "installing"]), Crash("n2", []), Crash("n3", ["installing"])],
        acknowledged=5,
        verdict=CLEAN,
        migrated_keys=4,
        troubles=[],
    )
    assert found.correct
    assert found.count("installing") == 2
    assert not msgspec.structs.replace(found, troubles=["n1 ended by itself"]).correct
    lost = msgspec.structs.replace(found, verdict=LOST)
    assert not lost.correct
    assert "put k1 [by n2]" in shown(crashes_report(lost))


def test_a_write_that_fails_without_a_kill_is_a_violation() -> None:
    found = ChurnResult(
        seed=1,
        changes=[
            MembershipChange(ChangeKind.ADD, "n4", None, 2.5),
            MembershipChange(ChangeKind.REMOVE, "n1", "n2", 7.5),
        ],
        acknowledged=5,
        failures=2,
        unexcused=[],
        verdict=CLEAN,
        troubles=[],
    )
    assert found.correct
    assert (found.count(ChangeKind.ADD, with_kill=False), found.count(ChangeKind.REMOVE, with_kill=False)) == (1, 0)
    failed = msgspec.structs.replace(found, unexcused=[FailedWrite("k1", 0, 1, "unknown at n1")])
    assert not failed.correct
    text = shown(churn_report(failed))
    assert "slowest change: remove n1, 7.5 s" in text
    assert "k1 unknown at n1" in text
