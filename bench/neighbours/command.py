"""`python -m bench neighbours`."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.command import Json, figure_table, finish, run, say, scratch_directory, verdict
from bench.compare.stores import ComparedStore, EtcdMembers, KvstoreMembers, find_etcd, metric
from bench.errors import BenchError
from bench.load.recording import LatencySummary
from bench.neighbours.activities import ACTIVITIES, ALONE, WRITER
from bench.neighbours.process import ClientOptions, run_clients
from bench.processes import check_platform

RATIO_LIMIT, P99_LIMIT_MS = 10.0, 100.0
INTERVAL_S = 0.02
"""Time from one PUT of the writer to the next."""
WARM_UP_S = 1.0
KVSTORE, ETCD = "kvstore", "etcd"
_LEADER_CHANGES = {KVSTORE: "kvstore_leader_changes_total", ETCD: "etcd_server_leader_changes_seen_total"}

NEIGHBOURS = typer.Typer()

Rows = Annotated[
    list[str] | None,
    typer.Option("--row", metavar="NAME", help=f"Measure this row; repeat. {', '.join(list(ACTIVITIES)[1:])}."),
]


class NeighbourRow(msgspec.Struct, frozen=True, kw_only=True):
    """The writer beside one activity, or alone."""

    store: str
    name: str
    writer: LatencySummary
    ratio: float
    """p99 divided by the p99 of the writer alone."""
    leader_changes: int
    neighbours: LatencySummary | None
    errors: int
    """Failed operations of the writer and of its neighbours."""

    @property
    def within_limits(self) -> bool:
        """Whether the latency is within the limits, and the leader did not change."""
        slow = self.writer.p99_ms > P99_LIMIT_MS or self.ratio > RATIO_LIMIT
        return not slow and not self.leader_changes


class NeighboursResult(msgspec.Struct, frozen=True, kw_only=True):
    """All rows."""

    rows: list[NeighbourRow]


@NEIGHBOURS.command()
def neighbours(
    *,
    rows: Rows = None,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of each row.")] = 10.0,
    etcd: Annotated[bool, typer.Option("--etcd", help="Measure etcd too, through its HTTP gateway.")] = False,
    json: Json = None,
) -> None:
    """Measure the PUTs of one steady writer at the leader, alone and beside other clients.

    The store has 100,000 keys of 100 bytes. Limits, for kvstore: p99 at most 10 times its value alone and at most 100
    ms, and no change of the leader.
    """
    check_platform()
    chosen = rows or [name for name in ACTIVITIES if name != WRITER]
    unknown = [name for name in chosen if name not in ACTIVITIES or name == WRITER]
    if unknown:
        raise BenchError(f"no row is named {unknown[0]}: choose from {', '.join(list(ACTIVITIES)[1:])}")
    with scratch_directory() as directory:
        result = run(_measure(directory, chosen, seconds, etcd=etcd))
    within_limits = all(row.within_limits for row in result.rows if row.store == KVSTORE)
    finish(json, result, neighbours_report(result), within_limits=within_limits)


async def _measure(directory: Path, names: list[str], seconds: float, *, etcd: bool) -> NeighboursResult:
    rows: list[NeighbourRow] = []
    stores: dict[str, ComparedStore] = {KVSTORE: KvstoreMembers(directory / KVSTORE)}
    if etcd:
        stores[ETCD] = EtcdMembers(find_etcd(), directory / ETCD)
    for name, store in stores.items():
        try:
            await store.start()
            say(f"{name}: filling")
            await run_clients(ClientOptions(url=store.leader, activity=WRITER, seconds=0, etcd=name == ETCD, fill=True))
            rows += await _measure_store(name, store, names, seconds)
        finally:
            await store.stop()
    return NeighboursResult(rows=rows)


async def _measure_store(store: str, members: ComparedStore, names: list[str], seconds: float) -> list[NeighbourRow]:
    rows: list[NeighbourRow] = []
    for name in (ALONE, *names):
        if store == ETCD and name != ALONE and ACTIVITIES[name].etcd is None:
            continue
        say(f"{store}: {name} for {seconds:g} s")
        alone = rows[0].writer if rows else None
        rows.append(await _measure_row(store, members, name, seconds, alone))
    return rows


async def _measure_row(
    store: str, members: ComparedStore, name: str, seconds: float, alone: LatencySummary | None
) -> NeighbourRow:
    etcd, url = store == ETCD, members.leader
    before = await _leader_changes(store, members)
    writing = ClientOptions(url=url, activity=WRITER, seconds=seconds, etcd=etcd, interval_s=INTERVAL_S)
    beside = None
    if name != ALONE:
        options = ClientOptions(url=url, activity=name, seconds=seconds + 2 * WARM_UP_S, etcd=etcd)
        beside = asyncio.create_task(run_clients(options))
        await asyncio.sleep(WARM_UP_S)
    writer = await run_clients(writing)
    others = await beside if beside is not None else None
    if writer.latencies is None:
        raise BenchError(f"no PUT was answered beside {name}: see the logs of the members")
    return NeighbourRow(
        store=store,
        name=name,
        writer=writer.latencies,
        ratio=writer.latencies.p99_ms / alone.p99_ms if alone is not None else 1.0,
        leader_changes=round(await _leader_changes(store, members) - before),
        neighbours=others.latencies if others is not None else None,
        errors=writer.errors + (others.errors if others is not None else 0),
    )


async def _leader_changes(store: str, members: ComparedStore) -> float:
    urls = [members.leader, *members.followers]
    return sum([await metric(url, _LEADER_CHANGES[store]) for url in urls])


def neighbours_report(result: NeighboursResult) -> RenderableType:
    """Return a table with a row for each activity."""
    table = figure_table("PUT beside", "p50", "p99", "max", "ratio", "leaders", "theirs", "errors")
    for row in result.rows:
        activity = ACTIVITIES.get(row.name)
        table.add_row(
            f"{row.store}: {f'{activity.clients} x {activity.title}' if activity is not None else ALONE}",
            *(f"{value:.1f}" for value in (row.writer.p50_ms, row.writer.p99_ms, row.writer.max_ms, row.ratio)),
            str(row.leader_changes),
            f"{row.neighbours.p50_ms:.0f}" if row.neighbours is not None else "",
            str(row.errors),
        )
    met = all(row.within_limits for row in result.rows if row.store == KVSTORE)
    units = (
        "latencies in ms; ratio: p99 to p99 alone; leaders: changes of the leader that the members saw; theirs: p50 of "
        "one operation of a neighbour"
    )
    limit = f"p99 <= {RATIO_LIMIT:g} x alone and <= {P99_LIMIT_MS:g} ms, no change of the leader"
    return Group(table, units, verdict(limit, met=met))
