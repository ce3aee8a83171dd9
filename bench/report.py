"""What was measured, for people."""

from collections.abc import Iterator

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table

from bench.compare import OPERATIONS, OURS, PUT_RATIO_LIMIT, THEIRS, Comparison, Measurement
from bench.failover import P50_LIMIT_MS, P99_LIMIT_MS, Failovers
from bench.figures import histogram, spread

_BUCKET_MS = 100


def failover_report(found: Failovers) -> RenderableType:
    """Percentiles, a histogram and what became of the writes."""
    lost = f"[red]{len(found.lost)} LOST[/red], the first of them {found.lost[0]}" if found.lost else "0 lost"
    return Group(
        _histogram(found),
        f"without a successful write, {len(found.outages_ms)} kills of the leader of {found.nodes} replicas: "
        f"p50 {found.p50_ms:.0f} ms, p99 {found.p99_ms:.0f} ms, max {max(found.outages_ms):.0f} ms",
        f"{found.acknowledged} writes of {found.clients} clients acknowledged, {lost}; "
        f"{found.unknown} of unknown outcome, {found.refused} refused",
        verdict(f"p50 <= {P50_LIMIT_MS} ms and p99 <= {P99_LIMIT_MS} ms", met=found.within_limits),
    )


def comparison_report(found: Comparison) -> RenderableType:
    """A row for each store and operation, and the ratios of the rounds."""
    table = Table("", "per s", "least - most", "p50 ms", "p99 ms", "CPU µs", "MiB", "errors", box=SIMPLE_HEAD)
    table.show_edge, table.collapse_padding = False, True
    for operation in OPERATIONS:
        for store in (OURS, THEIRS):
            table.add_row(f"{store} {operation}", *_cells(found.of(store, operation)))
    return Group(
        f"medians of {found.rounds} rounds of {found.seconds} s, {found.connections} connections to the leader; "
        "CPU for an operation and resident memory are of all members together",
        table,
        *_ratio_lines(found),
        verdict(f"put >= {PUT_RATIO_LIMIT} x etcd", met=found.within_limits),
    )


def print_report(report: RenderableType) -> None:
    """To standard output, with nothing of it taken for markup but our own."""
    Console(highlight=False, soft_wrap=True).print(report)


def _histogram(found: Failovers) -> Table:
    counts = histogram(found.outages_ms, _BUCKET_MS)
    most = max(count for _, count in counts)
    table = Table.grid(padding=(0, 1))
    for lower, count in counts:
        table.add_row(f"{lower:>5} - {lower + _BUCKET_MS} ms", f"{count:>3}", Bar(most, 0, count, width=40))
    return table


def _cells(rounds: list[Measurement]) -> Iterator[str]:
    rates = spread([one.per_second for one in rounds])
    yield f"{rates.median:,.0f}"
    yield f"{rates.least:,.0f} - {rates.most:,.0f}"
    yield f"{spread([one.p50_ms for one in rounds]).median:.2f}"
    yield f"{spread([one.p99_ms for one in rounds]).median:.2f}"
    yield f"{spread([one.cpu_us for one in rounds]).median:.0f}"
    yield f"{spread([one.resident_mib for one in rounds]).median:.0f}"
    yield str(sum(one.errors for one in rounds))


def _ratio_lines(found: Comparison) -> Iterator[str]:
    for operation in OPERATIONS:
        ratio = found.ratio(operation)
        each = ", ".join(f"{ratio:.2f}" for ratio in found.ratios(operation))
        yield f"{operation}: {ratio.median:.2f} x etcd ({ratio.least:.2f} - {ratio.most:.2f}); round by round {each}"


def verdict(limit: str, *, met: bool) -> str:
    """A line that says whether a limit is kept."""
    return f"[green]within the limit[/green]: {limit}" if met else f"[red]beyond the limit[/red]: {limit}"
