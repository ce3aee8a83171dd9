"""What is within the limits, and what is said of what is not."""

import io

import msgspec
from rich.console import Console, RenderableType

from tests.torture.faults.history import Judgement
from tests.torture.lifecycle import report
from tests.torture.lifecycle.churn import Change, Churn, What
from tests.torture.lifecycle.clients import Failure
from tests.torture.lifecycle.crashes import Crash, Crashes
from tests.torture.lifecycle.damage import Damages, Flip, Outcome

CLEAN = Judgement(keys=9, silent=[], illegal=[], backwards=[], lost=[])
LOST = msgspec.structs.replace(CLEAN, lost=["put k1 [by n2]"])


def shown(rendered: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=120, highlight=False, soft_wrap=True).print(rendered)
    return output.getvalue()


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
