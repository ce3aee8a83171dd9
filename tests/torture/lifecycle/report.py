"""What was found of the life of replicas, for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.markup import escape

from bench.lifecycle.replicas import DATABASE, LOG
from bench.report import figure_table, verdict
from tests.torture.faults.history import Judgement
from tests.torture.lifecycle.churn import Churn, What
from tests.torture.lifecycle.crashes import Crashes
from tests.torture.lifecycle.damage import Damages, Outcome

REASONS = 10
UNDER_WAY = ("cutting", "compacting", "installing", "clearing", "migrating", "replaying", "starting")


def damage_report(found: Damages) -> RenderableType:
    """How the flips ended, and those that ended badly."""
    table = figure_table("flipped in", *Outcome)
    for file in (DATABASE, LOG):
        table.add_row(file, *(str(found.count(file, outcome)) for outcome in Outcome))
    bad = [flip for flip in found.flips if flip.outcome in {Outcome.REFUSED, Outcome.WRONG}]
    return Group(
        table,
        f"{found.acknowledged:,} writes acknowledged, {found.reads:,} answers of the damaged replica compared",
        *_few(
            [f"{flip.outcome}: bit {flip.bit} of {flip.file} ({flip.size_bytes:,} B): {flip.detail}" for flip in bad]
        ),
        verdict("every flip found or harmless", met=found.within_limits),
        f"again: python -m tests.torture damage --flips {len(found.flips)} --seed {found.seed}",
    )


def crashes_report(found: Crashes) -> RenderableType:
    """What was under way when replicas were killed, and what was lost by that."""
    table = figure_table("in the midst of", "kills")
    for what in UNDER_WAY:
        table.add_row(what, str(found.count(what)))
    table.add_row("none of these", str(sum(not crash.under_way for crash in found.crashes)))
    return Group(
        table,
        f"{len(found.crashes)} kills with SIGKILL; {found.migrated_keys} keys read back after each migration",
        *judged(found.judgement, found.acknowledged),
        *_few(found.troubles),
        verdict("nothing lost", met=found.within_limits),
        f"again: python -m tests.torture crashes --kills {len(found.crashes)} --seed {found.seed}",
    )


def churn_report(found: Churn) -> RenderableType:
    """The changes, and what writers noticed."""
    table = figure_table("change", "without a kill", "with one")
    for what in What:
        table.add_row(what, str(found.count(what, with_kill=False)), str(found.count(what, with_kill=True)))
    slowest = max(found.changes, key=lambda change: change.seconds)
    return Group(
        table,
        f"the slowest was to {slowest.what} {slowest.member}, {slowest.seconds:.1f} s until all had caught up",
        *judged(found.judgement, found.acknowledged),
        f"{found.failures} writes failed, {len(found.unexcused)} of them without a fault",
        *_few([*found.troubles, *(f"{one.key} {one.why}" for one in found.unexcused)]),
        verdict("no violation, no write failed without a fault", met=found.within_limits),
        f"again: python -m tests.torture churn --changes {len(found.changes)} --seed {found.seed}",
    )


def judged(judgement: Judgement, acknowledged: int) -> Iterator[str]:
    yield (
        f"{acknowledged:,} writes acknowledged, {len(judgement.lost)} lost; {judgement.keys} keys: "
        f"{len(judgement.illegal)} illegal, {len(judgement.silent)} silent; "
        f"{len(judgement.backwards)} revisions went back"
    )
    yield from _few([*judgement.lost, *judgement.backwards])


def _few(reasons: list[str]) -> Iterator[str]:
    for reason in reasons[:REASONS]:
        yield f"  {escape(reason)}"
    if len(reasons) > REASONS:
        yield f"  and {len(reasons) - REASONS} more"
