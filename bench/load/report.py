"""A load for people, for a spreadsheet and as charts."""

import csv
import io
from collections.abc import Iterator, Sequence

from hdrh.histogram import HdrHistogram
from rich.console import Group, RenderableType
from rich.table import Table

from bench.chart import Axis, Chart, Series
from bench.load.found import Latency, Load, per_second
from bench.report import figure_table

FIELDS = ("mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "most_ms")
PERCENTILES = {1.0: "0", 2.0: "50 %", 10.0: "90 %", 100.0: "99 %", 1e3: "99.9 %", 1e4: "99.99 %", 1e5: "99.999 %"}
"""By one over the share that took longer: so the tail is drawn as wide as the rest."""
COLUMNS = ("kind", "rate", "connections", "per_second", "count", *FIELDS, "errors", "unsent", "stall_ms", "cost_us")


def load_report(found: Load) -> RenderableType:
    """Throughput, latencies, errors and what the generator itself needed."""
    return Group(
        f"{described(found)}: {found.per_second:,.0f} answers a second for {found.seconds:g} s",
        latency_table(found),
        *_remarks(found),
        f"the generator needed {found.cost_us:.1f} µs of CPU for a request; its busiest process was busy for "
        f"{found.busiest:.0%} of the time",
    )


def described(found: Load) -> str:
    """What was asked for."""
    mix = found.mix
    how = "closed loop" if found.rate is None else f"open loop, {found.rate:,.0f} a second"
    return (
        f"{how}, {found.connections} connections, {mix.reads} % GET, {mix.keys:,} keys ({mix.distribution}), "
        f"{mix.value_bytes:,} bytes"
    )


def latency_table(found: Load) -> Table:
    """A row for each kind of requests."""
    table = figure_table("ms", "requests", "mean", "p50", "p90", "p99", "p99.9", "max")
    for name, each in kinds(found):
        if each is not None and (name != "all" or (found.get and found.put)):
            table.add_row(name, f"{each.count:,}", *(f"{getattr(each, field):.2f}" for field in FIELDS))
    return table


def kinds(found: Load) -> Iterator[tuple[str, Latency | None]]:
    """By name."""
    yield from (("PUT", found.put), ("GET", found.get), ("all", found.all))


def write_csv(loads: Sequence[Load]) -> str:
    """A line for each load and kind of requests."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for load in loads:
        for name, each in kinds(load):
            if each is None:
                continue
            figures = [round(getattr(each, field), 3) for field in FIELDS]
            rate = "" if load.rate is None else round(load.rate, 1)
            ends = [load.errors, load.unsent, load.stall_ms, round(load.cost_us, 1)]
            writer.writerow([name, rate, load.connections, round(load.per_second, 1), each.count, *figures, *ends])
    return text.getvalue()


def charts(found: Load) -> list[Chart]:
    """The distribution of latencies, and throughput over time."""
    bin_s = 1.0 if found.seconds >= 20 else 0.1
    rates = per_second(found.bins, bin_s)
    drawn = [Series(name, distribution(each)) for name, each in kinds(found) if each is not None and name != "all"]
    most = max(x for series in drawn for x, _ in series.points)
    ticks = {at: name for at, name in PERCENTILES.items() if at <= 1.001 * most}
    return [
        Chart(
            "Latency by percentile", Axis("share of requests that were as fast", "log", ticks), Axis("ms", "log"), drawn
        ),
        Chart(
            "Throughput",
            Axis("s"),
            Axis("answers a second"),
            [Series("", [(bin_s * (number + 0.5), rate) for number, rate in enumerate(rates)])],
        ),
    ]


def distribution(latency: Latency) -> list[tuple[float, float]]:
    """Milliseconds over one by the share that took longer, up to the last but few requests."""
    histogram = HdrHistogram.decode(latency.histogram)
    shares = [0.0, *(1 - 10 ** (-step / 10) for step in range(1, 61))]
    return [
        (1 / (1 - share), histogram.get_value_at_percentile(100 * share) / 1000)
        for share in shares
        if (1 - share) * latency.count >= 1
    ]


def _remarks(found: Load) -> Iterator[str]:
    if found.errors:
        bad = {status: count for status, count in found.statuses.items() if not 200 <= status < 300}
        yield f"[red]{found.errors} errors[/red]: {found.lost} requests without an answer, answers by status {bad}"
    if found.saturated:
        yield (
            f"[yellow]saturated[/yellow]: {found.per_second:,.0f} of {found.rate:,.0f} requests a second were "
            f"answered, {found.unsent:,} not even sent; latencies tell how long the run was"
        )
    if found.limited_by_generator:
        yield "[yellow]the generator may be the limit[/yellow]: take more --processes"
