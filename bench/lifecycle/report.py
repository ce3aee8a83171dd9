"""What was found of the life of replicas, for people."""

from rich.console import Group, RenderableType

from bench.lifecycle.replicas import Start
from bench.lifecycle.restart import RESIDENT_LIMIT_MB, START_LIMIT_S, Restarts
from bench.lifecycle.snapshot import P99_RATIO_LIMIT, Transfer
from bench.lifecycle.soak import GROWTH_LIMIT, Sample, Soak
from bench.report import figure_table, verdict


def restart_report(found: Restarts) -> RenderableType:
    """Starts and memory."""
    table = figure_table("started", "s until ready", "CPU s")
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
    table = figure_table(f"writers, {speed}", "s", "PUT/s", "p50 ms", "p99 ms", "max ms")
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


def _start_cells(start: Start) -> tuple[str, str]:
    return f"{start.seconds:.1f}", f"{start.cpu_s:.1f}"


def _memory(megabytes: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} MB" for name, value in megabytes.items())
