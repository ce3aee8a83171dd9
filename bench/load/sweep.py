"""The curve of latency over throughput: an open loop at growing rates, until the store does not keep up."""

from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType

from bench.chart import Axis, Chart, Series
from bench.load.found import Load
from bench.report import figure_table

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)
"""Of what a closed loop has reached. An open loop may reach more than that, for it has more connections."""


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """`peak`: a closed loop. `steps`: open loops at growing rates; only the last of them is saturated, if one is."""

    peak: Load
    steps: list[Load]

    @property
    def loads(self) -> list[Load]:
        """All of them."""
        return [self.peak, *self.steps]

    @property
    def kept_up(self) -> list[Load]:
        """The steps at which the store kept up."""
        return [step for step in self.steps if not step.saturated]


def sweep_report(found: Sweep) -> RenderableType:
    """A row for each rate."""
    table = figure_table("asked for/s", "answered/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "errors", "")
    for load in found.loads:
        latency = load.all
        times = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.most_ms)
        table.add_row(
            "closed loop" if load.rate is None else f"{load.rate:,.0f}",
            f"{load.per_second:,.0f}",
            *(f"{value:.2f}" for value in times),
            str(load.errors),
            "saturated" if load.saturated else "",
        )
    kept_up = max((step.per_second for step in found.kept_up), default=0.0)
    return Group(
        f"{found.peak.mix.reads} % GET, {found.peak.mix.keys:,} keys ({found.peak.mix.distribution}), "
        f"{found.peak.mix.value_bytes:,} bytes; latencies count from when a request was due",
        table,
        f"kept up with {kept_up:,.0f} requests a second; a closed loop of {found.peak.connections} connections reaches "
        f"{found.peak.per_second:,.0f}",
    )


def charts(steps: Sequence[Load]) -> list[Chart]:
    """The curve."""
    lines = [("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")]
    drawn = [Series(name, [(step.per_second, getattr(step.all, field)) for step in steps]) for name, field in lines]
    return [Chart("Latency over throughput", Axis("answers a second"), Axis("ms", "log"), drawn)]
