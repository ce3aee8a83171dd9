"""The tables of `kvstore top`: progress, load and recent changes, which fit into 80 columns."""

import time
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from kvstore.api.status import Status
from kvstore.cli import terminal
from kvstore.cli.cluster_view import ClusterView, ReplicaView
from kvstore.cli.status import role_of


def tables_of(view: ClusterView, width: int) -> RenderableType:
    """Return the output for a terminal of `width` columns."""
    progress = terminal.fit(_progress(view), width, ("keys", "lease", "revision", "ballot"))
    parts: list[RenderableType] = [_headline(view), progress]
    if any(each.unreachable_s is None for each in view.replicas):
        parts.append(Text(" client requests in the last second; times in ms", style="italic"))
        parts.append(terminal.fit(_load(view), width, ("data", "memory", "fsync p99", "p50")))
    for each in view.replicas:
        if each.unreachable_s is not None:
            duration = _duration(each.unreachable_s)
            parts.append(Text(f" {each.name} unreachable for {duration}: {each.error}", style="red"))
    if view.not_asked:
        parts.append(Text(f" not among --endpoints: {', '.join(view.not_asked)}", style="dim"))
    for event in view.events:
        at = time.strftime("%H:%M:%S", time.localtime(event.at))
        parts.append(Text.assemble((f" {at} ", "dim"), event.message))
    return Group(*parts)


def _headline(view: ClusterView) -> Text:
    up = sum(each.unreachable_s is None for each in view.replicas)
    line = Text.assemble(" cluster ", (view.cluster or "unknown", "bold"), "   ")
    line.append(f"{up} of {len(view.replicas)} replicas answer", style="" if up == len(view.replicas) else "red")
    line.append("   ")
    return line.append(f"{view.leader} leads", style="green") if view.leader else line.append("no leader", "red")


def _table(*columns: Column) -> Table:
    rows = terminal.table(*columns)
    rows.padding = 0
    return rows


def _replica() -> Column:
    return Column("replica", overflow="fold", min_width=7)


def _right(name: str) -> Column:
    return Column(name, justify="right", no_wrap=True)


def _progress(view: ClusterView) -> Table:
    rows = _table(
        _replica(), Column("role", no_wrap=True),
        *map(_right, ("ballot", "lease", "chosen", "applied", "lag", "revision", "keys")),
    )  # fmt: skip
    for each in view.replicas:
        if each.unreachable_s is not None or each.status is None:
            rows.add_row(Text(each.name), "[red]unreachable[/red]", "", "", "", "", _number(each.lag), "", "")
            continue
        status = each.status
        rows.add_row(
            Text(each.name), role_of(status), status.ballot, _lease(status), str(status.chosen), str(status.applied),
            _number(each.lag), str(status.revision), str(status.keys),
        )  # fmt: skip
    return rows


def _load(view: ClusterView) -> Table:
    names = ("reads/s", "p50", "p99", "writes/s", "p50", "p99", "fsync p99", "data", "memory")
    rows = _table(_replica(), *map(_right, names))
    for each in view.replicas:
        if each.unreachable_s is None:
            rows.add_row(Text(each.name), *_load_cells(each))
    loads = [each.load for each in view.replicas if each.load is not None]
    if len(loads) > 1:
        reads, writes = sum(load.reads_per_s for load in loads), sum(load.writes_per_s for load in loads)
        rows.add_section()
        rows.add_row("all", f"{reads:,.0f}", "", "", f"{writes:,.0f}", style="bold")
    return rows


def _load_cells(each: ReplicaView) -> list[str]:
    resources = [_bytes(each.data_bytes), _bytes(each.memory_bytes)]
    load = each.load
    if load is None:
        return [*[""] * 7, *resources]
    return [
        f"{load.reads_per_s:,.0f}", _ms(load.read_p50_ms), _ms(load.read_p99_ms),
        f"{load.writes_per_s:,.0f}", _ms(load.write_p50_ms), _ms(load.write_p99_ms), _ms(load.fsync_p99_ms),
        *resources,
    ]  # fmt: skip


def _lease(status: Status) -> str:
    return "" if status.lease_left_ms is None else f"{status.lease_left_ms:.0f} ms"


def _ms(found: float | None) -> str:
    if found is None:
        return ""
    return f"{found:.2f}" if found < 10 else f"{found:.0f}"


def _unless_none(write: Callable[[int], str]) -> Callable[[int | None], str]:
    return lambda found: "" if found is None else write(found)


_number = _unless_none(str)
_bytes = _unless_none(decimal)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} m" if seconds < 6000 else f"{seconds / 3600:.0f} h"
