"""What was found of the life of replicas, for people."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bench.faults.history import Judgement
from bench.lifecycle.churn import Churn, What
from bench.lifecycle.crashes import Crashes
from bench.lifecycle.damage import Damages, Outcome
from bench.lifecycle.replicas import DATABASE, LOG, Start
from bench.lifecycle.restart import RESIDENT_LIMIT_MB, START_LIMIT_S, Restarts
from bench.lifecycle.snapshot import P99_RATIO_LIMIT, Transfer
from bench.lifecycle.soak import GROWTH_LIMIT, Sample, Soak
from bench.report import verdict

REASONS = 10
UNDER_WAY = ("cutting", "compacting", "installing", "clearing", "migrating", "replaying", "starting")


def restart_report(found: Restarts) -> RenderableType:
    """Starts and memory."""
    table = _table("started", "s until ready", "CPU s")
    for start in found.one:
        table.add_row("one", *_start_cells(start))
    table.add_row("all", *_start_cells(found.all))
    return Group(
        f"{found.keys:,} keys of {found.value_bytes} bytes, made in {found.prepared_s:.0f} s",
        table,
        f"resident: {_memory(found.filled_mb)} under load, {_memory(found.restarted_mb)} after the start",
        f"one replica is ready after {found.median_s:.1f} s (median)",
        verdict(f"ready within {START_LIMIT_S:.0f} s", met=found.median_s <= START_LIMIT_S),
        verdict(f"resident <= {RESIDENT_LIMIT_MB:.0f} MB", met=found.most_mb <= RESIDENT_LIMIT_MB),
    )


def sample_line(sample: Sample) -> str:
    """A moment of a soak."""
    sizes = ", ".join(f"{name} {database:.1f} + {log:.1f}" for name, (database, log) in sample.file_mb.items())
    most_mb = max(sample.resident_mb.values())
    speed = f"{sample.seconds:>5.0f} s {sample.per_second:>7,.0f} PUT/s"
    return f"{speed}  db + wal MB: {sizes}  resident at most {most_mb:.0f} MB"


def soak_report(found: Soak) -> RenderableType:
    """Speed and sizes."""
    seconds = found.samples[-1].seconds
    largest_mb = max(sample.total_mb(name) for sample in found.samples for name in sample.file_mb)
    return Group(
        f"{found.answered:,} PUTs in {seconds:.0f} s ({found.answered / seconds:,.0f}/s), {found.refused} refused; "
        f"{found.keys:,} keys of {found.value_bytes} bytes, {found.connections} connections",
        f"files at most {largest_mb:.1f} MB, in the last third at most {found.worst_growth:.2f} x of the middle third",
        verdict(f"last third <= {GROWTH_LIMIT} x middle third", met=found.within_limits),
    )


def snapshot_report(found: Transfer) -> RenderableType:
    """What writers saw, phase by phase."""
    speed = "full speed" if found.per_second is None else f"{found.per_second:.0f} PUT/s"
    table = _table(f"writers, {speed}", "s", "PUT/s", "p50 ms", "p99 ms", "max ms")
    for name, phase in (("before", found.before), ("during", found.during), ("after", found.after)):
        times = (f"{value:.1f}" for value in (phase.p50_ms, phase.p99_ms, phase.most_ms))
        table.add_row(name, f"{phase.seconds:.1f}", f"{phase.puts / phase.seconds:,.0f}", *times)
    return Group(
        f"{found.mib} MiB of state in {found.during.seconds:.1f} s, {found.mib_per_s:.1f} MiB/s",
        table,
        f"led under {', '.join(dict.fromkeys(found.ballots))}; {found.refused} PUTs refused",
        f"resident: {_memory(found.at_rest_mb)} before, at most {_memory(found.most_mb)} meanwhile",
        f"p99 during: {found.ratio:.2f} x of that without",
        verdict(f"p99 <= {P99_RATIO_LIMIT} x of that without, one leader", met=found.within_limits),
    )


def damage_report(found: Damages) -> RenderableType:
    """How the flips ended, and those that ended badly."""
    table = _table("flipped in", *Outcome)
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
        f"again: python -m bench damage --flips {len(found.flips)} --seed {found.seed}",
    )


def crashes_report(found: Crashes) -> RenderableType:
    """What was under way when replicas were killed, and what was lost by that."""
    table = _table("in the midst of", "kills")
    for what in UNDER_WAY:
        table.add_row(what, str(found.count(what)))
    table.add_row("none of these", str(sum(not crash.under_way for crash in found.crashes)))
    return Group(
        table,
        f"{len(found.crashes)} kills with SIGKILL; {found.migrated_keys} keys read back after each migration",
        *_judged(found.judgement, found.acknowledged),
        *_few(found.troubles),
        verdict("nothing lost", met=found.within_limits),
        f"again: python -m bench crashes --kills {len(found.crashes)} --seed {found.seed}",
    )


def churn_report(found: Churn) -> RenderableType:
    """The changes, and what writers noticed."""
    table = _table("change", "without a kill", "with one")
    for what in What:
        table.add_row(what, str(found.count(what, with_kill=False)), str(found.count(what, with_kill=True)))
    slowest = max(found.changes, key=lambda change: change.seconds)
    return Group(
        table,
        f"the slowest was to {slowest.what} {slowest.member}, {slowest.seconds:.1f} s until all had caught up",
        *_judged(found.judgement, found.acknowledged),
        f"{found.failures} writes failed, {len(found.unexcused)} of them without a fault",
        *_few([*found.troubles, *(f"{one.key} {one.why}" for one in found.unexcused)]),
        verdict("no violation, no write failed without a fault", met=found.within_limits),
        f"again: python -m bench churn --changes {len(found.changes)} --seed {found.seed}",
    )


def _judged(judgement: Judgement, acknowledged: int) -> Iterator[str]:
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


def _table(*columns: str) -> Table:
    table = Table(*columns, box=SIMPLE_HEAD)
    table.show_edge = False
    return table


def _start_cells(start: Start) -> tuple[str, str]:
    return f"{start.seconds:.1f}", f"{start.cpu_s:.1f}"


def _memory(megabytes: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} MB" for name, value in megabytes.items())
