"""A run, for people at a terminal: while it lasts, and its result."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tests.torture.faults.found import Found, Verdict
from tests.torture.faults.run import Scene

REASONS = 10
"""Lines of what is wrong; all of it is in the JSON."""


def scene_line(scene: Scene, goal: str) -> str:
    """What goes on, in a line."""
    calls, tormentor = scene.load.calls, scene.tormentor
    answered = scene.load.answered
    under_way = f"[red]{tormentor.under_way}[/red]" if tormentor.under_way else "[green]calm[/green]"
    return (
        f"{scene.now():.0f} s of {goal}: {under_way}, leader {scene.watch.leader or 'nobody'}, {len(calls)} calls, "
        f"{answered} answered, {len(tormentor.strikes)} faults, {tormentor.kills} kills"
    )


def summary(found: Found) -> RenderableType:
    """Faults, calls and the verdict."""
    judgement = found.judgement
    good = found.verdict is Verdict.OK
    reasons = [f"  {verdict}: {escape(why)}" for verdict, why in found.reasons()]
    more = [f"  and {len(reasons) - REASONS} more"] if len(reasons) > REASONS else []
    return Group(
        _faults(found),
        *(f"{fault} was not made: {why}" for fault, why in found.not_offered.items()),
        f"{found.calls} calls of {found.clients} clients at {found.nodes} replicas in {found.seconds:.0f} s: "
        f"{found.of('answered')} answered, {found.of('unknown')} of unknown outcome, {found.of('refused')} refused",
        f"{found.acknowledged} writes acknowledged, {len(judgement.lost)} lost after {found.kills} kills with SIGKILL",
        f"{judgement.keys} keys: {len(judgement.illegal)} illegal, {len(judgement.silent)} silent "
        f"({100 * len(judgement.silent) / max(1, judgement.keys):.2g} %); "
        f"{len(judgement.backwards)} revisions went back",
        f"[{'green' if good else 'red'}]{found.verdict}[/]: {found.verdict.sentence}",
        *reasons[:REASONS],
        *more,
        f"again: {found.command}",
    )


def _faults(found: Found) -> Table:
    table = Table("fault", "made", "landed", "what it did", box=SIMPLE_HEAD)
    table.show_edge = False
    for fault in dict.fromkeys(strike.fault for strike in found.strikes):
        strikes = [strike for strike in found.strikes if strike.fault is fault]
        effect = f"{sum(strike.effect for strike in strikes):,} {strikes[0].what}"
        table.add_row(fault, str(len(strikes)), str(sum(strike.effect > 0 for strike in strikes)), effect)
    return table
