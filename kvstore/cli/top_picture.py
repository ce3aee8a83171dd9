"""What `kvstore top` shows: two tables that fit into 80 columns, and what changed last."""

import time
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from kvstore.api.status import Status
from kvstore.cli import output
from kvstore.cli.cluster_view import ClusterView, ReplicaView
from kvstore.cli.status import role_of


def picture_of(view: ClusterView) -> RenderableType:
    """Everything, as it is drawn."""
    parts: list[RenderableType] = [_headline(view), _progress(view)]
    if any(each.silent_s is None for each in view.replicas):
        parts.append(_load(view))
    parts += [Text(f" {_who(each)}{each.error}", style="red") for each in view.replicas if each.silent_s is not None]
    if view.not_asked:
        parts.append(Text(f" {', '.join(view.not_asked)}: not among --endpoints", style="dim"))
    for event in view.events:
        at = time.strftime("%H:%M:%S", time.localtime(event.at))
        parts.append(Text.assemble((f" {at} ", "dim"), event.what))
    return Group(*parts)


def _who(each: ReplicaView) -> str:
    return f"{each.name}: " if each.status is not None else ""


def _headline(view: ClusterView) -> Text:
    up = sum(each.silent_s is None for each in view.replicas)
    line = Text.assemble(" cluster ", (view.cluster or "unknown", "bold"), "   ")
    line.append(f"{up} of {len(view.replicas)} answer", style="" if up == len(view.replicas) else "red")
    line.append("   ")
    return line.append(f"{view.leader} leads", style="green") if view.leader else line.append("nobody leads", "red")


def _table(*columns: Column, title: str | None = None) -> Table:
    """With columns close together: there are many, and some grow wide."""
    rows = output.table(*columns, title=title)
    rows.padding = 0
    return rows


def _replica() -> Column:
    return Column("replica", overflow="fold")


def _right(name: str) -> Column:
    return Column(name, justify="right", no_wrap=True)


def _progress(view: ClusterView) -> RenderableType:
    rows = _table(
        _replica(), Column("role", no_wrap=True),
        *map(_right, ("ballot", "lease", "chosen", "applied", "lag", "revision", "keys")),
    )  # fmt: skip
    for each in view.replicas:
        if each.silent_s is not None or each.status is None:
            silent = f"[red]silent {_duration(each.silent_s or 0.0)}[/red]"
            rows.add_row(Text(each.name), silent, "", "", "", "", _number(each.lag), "", "")
            continue
        status = each.status
        rows.add_row(
            Text(each.name), role_of(status), status.ballot, _lease(status), str(status.chosen), str(status.applied),
            _number(each.lag), str(status.revision), str(status.keys),
        )  # fmt: skip
    return rows


def _load(view: ClusterView) -> RenderableType:
    names = ("reads/s", "p50", "p99", "writes/s", "p50", "p99", "fsync p99", "data", "memory")
    rows = _table(_replica(), *map(_right, names), title=" requests of clients in the last second; times in ms")
    for each in view.replicas:
        if each.silent_s is None:
            rows.add_row(Text(each.name), *_rates(each), _bytes(each.data_bytes), _bytes(each.memory_bytes))
    loads = [each.load for each in view.replicas if each.load is not None]
    if len(loads) > 1:
        reads, writes = sum(load.reads_per_s for load in loads), sum(load.writes_per_s for load in loads)
        rows.add_section()
        rows.add_row("all", f"{reads:,.0f}", "", "", f"{writes:,.0f}", style="bold")
    return rows


def _rates(each: ReplicaView) -> list[str]:
    load = each.load
    if load is None:
        return [""] * 7
    return [
        f"{load.reads_per_s:,.0f}", _ms(load.read_p50_ms), _ms(load.read_p99_ms),
        f"{load.writes_per_s:,.0f}", _ms(load.write_p50_ms), _ms(load.write_p99_ms), _ms(load.fsync_p99_ms),
    ]  # fmt: skip


def _lease(status: Status) -> str:
    return "" if status.lease_left_ms is None else f"{status.lease_left_ms:.0f} ms"


def _ms(found: float | None) -> str:
    if found is None:
        return ""
    return f"{found:.2f}" if found < 10 else f"{found:.0f}"


def _given(write: Callable[[int], str]) -> Callable[[int | None], str]:
    return lambda found: "" if found is None else write(found)


_number = _given(str)
_bytes = _given(decimal)


def _duration(seconds: float) -> str:
    """In six characters."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} m" if seconds < 6000 else f"{seconds / 3600:.0f} h"
