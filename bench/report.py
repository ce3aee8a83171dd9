"""What was measured, for people."""

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table

from bench.chart import Axis, Chart, Series
from bench.failover import AFTER_S, BEFORE_S, BIN_S, P50_LIMIT_MS, P99_LIMIT_MS, Failovers
from bench.figures import histogram

_BUCKET_MS = 100


def failover_report(found: Failovers) -> RenderableType:
    """Percentiles, a histogram and what became of the writes."""
    lost = f"[red]{len(found.lost)} LOST[/red], the first of them {found.lost[0]}" if found.lost else "0 lost"
    return Group(
        _histogram(found),
        _around(found),
        f"without a successful write, {len(found.outages_ms)} kills of the leader of {found.nodes} replicas: "
        f"p50 {found.p50_ms:.0f} ms, p99 {found.p99_ms:.0f} ms, max {max(found.outages_ms):.0f} ms",
        f"{found.acknowledged} writes of {found.clients} clients acknowledged, {lost}; "
        f"{found.unknown} of unknown outcome, {found.refused} refused",
        verdict(f"p50 <= {P50_LIMIT_MS} ms and p99 <= {P99_LIMIT_MS} ms", met=found.within_limits),
    )


def failover_charts(found: Failovers) -> list[Chart]:
    """Writes a second around a kill, and over the whole run."""
    points = [(BIN_S * (number + 0.5) - BEFORE_S, rate) for number, rate in enumerate(found.around)]
    seconds = round(1 / BIN_S)
    whole = [sum(found.bins[start : start + seconds]) for start in range(0, len(found.bins) - seconds + 1, seconds)]
    over_time = [(start + 0.5, float(count)) for start, count in enumerate(whole)]
    return [
        Chart(
            f"Around a kill of the leader, mean of {len(found.kills_s)}",
            Axis("s after the kill", ticks={-1.0: "-1", 0.0: "0", 1.0: "1", 2.0: "2"}, span=(-BEFORE_S, AFTER_S)),
            Axis("writes/s"),
            [Series("", points)],
        ),
        Chart("The whole run", Axis("s"), Axis("writes/s"), [Series("", over_time)]),
    ]


def figure_table(name: str, *columns: str) -> Table:
    """An empty table of figures, which stand at the right of their columns, with a name for each row."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, collapse_padding=True)
    table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def print_report(report: RenderableType) -> None:
    """To standard output, with nothing of it taken for markup but our own."""
    Console(highlight=False, soft_wrap=True).print(report)


def _around(found: Failovers) -> str:
    """Writes a second before a kill and after it, in words."""
    rates = {round(BIN_S * number - BEFORE_S, 1): rate for number, rate in enumerate(found.around)}
    before = [rate for at, rate in rates.items() if at < 0]
    steps = ", ".join(f"{rates[at]:,.0f} from {at:g} s on" for at in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5) if at in rates)
    return f"writes a second, mean of all kills: {sum(before) / len(before):,.0f} before, then {steps}"


def _histogram(found: Failovers) -> Table:
    counts = histogram(found.outages_ms, _BUCKET_MS)
    most = max(count for _, count in counts)
    table = Table.grid(padding=(0, 1))
    for lower, count in counts:
        table.add_row(f"{lower:>5} - {lower + _BUCKET_MS} ms", f"{count:>3}", Bar(most, 0, count, width=40))
    return table


def verdict(limit: str, *, met: bool) -> str:
    """A line that says whether a limit is kept."""
    return f"[green]within the limit[/green]: {limit}" if met else f"[red]beyond the limit[/red]: {limit}"
