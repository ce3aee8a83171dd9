"""What a comparison found, and what follows from it: pure."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.figures import Spread, spread

Figure = Literal["per_second", "bytes_per_second", "p50_ms", "p99_ms", "p999_ms"]
"""What a row compares. Of the latencies less is better."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one store. CPU time, memory and fsyncs are of all members together, not of the load."""

    per_second: float
    bytes_per_second: float
    """Of values."""
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    """Latencies are None where the generator does not tell them."""
    asked_per_second: float | None
    """The rate of an open loop."""
    cpu_us: float
    """CPU microseconds for an operation."""
    fsyncs_per_second: float
    batch: float | None
    """Writes that one fsync of the leader made durable, in the mean; None of reads, and where there is none."""
    resident_mib: float


class Case(msgspec.Struct, frozen=True):
    """A load on a store, both by name."""

    store: str
    load: str

    def __str__(self) -> str:
        return f"{self.store}, {self.load}"


class Row(msgspec.Struct, frozen=True):
    """A figure, and its bar. With `theirs` the bar is for the ratio of the two in each round, else for our figure. A
    rate has to reach its bar, a latency must not go above it."""

    title: str
    figure: Figure
    ours: Case
    theirs: Case | None
    bar: float | None
    """None: shown, and nothing is promised."""

    @property
    def less_is_better(self) -> bool:
        """True of latencies."""
        return self.figure.endswith("_ms")

    def kept_by(self, value: float) -> bool:
        """Whether a median keeps the promise."""
        if self.bar is None:
            return True
        return value <= self.bar if self.less_is_better else value >= self.bar

    @property
    def promise(self) -> str:
        """The bar in words."""
        if self.bar is None:
            return ""
        sign = "<=" if self.less_is_better else ">="
        return f"{sign} {self.bar:g}" if self.theirs else f"{sign} {self.bar:g} {unit(self.figure)}"


def unit(figure: Figure) -> str:
    """What a figure counts."""
    return {"per_second": "/s", "bytes_per_second": "B/s"}.get(figure, "ms")


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one store in one round, the first of which is 1."""

    scenario: str
    round: int
    case: Case
    figures: Figures


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the rounds say about a row. `values`: the ratio, or our figure, of each round."""

    scenario: str
    row: Row
    ours: Spread
    theirs: Spread | None
    values: list[float]
    value: Spread
    """Of `values`. Each ratio is of two loads that followed each other, so the median is robust."""
    met: bool
    """Whether the median keeps the promise; true where there is none."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What disk and loopback do by themselves: one writer's fdatasync and one connection's echo, a second."""

    cores: int
    fdatasyncs_per_second: list[float]
    round_trips_per_second: list[float]


class Comparison(msgspec.Struct, kw_only=True):
    """All that was measured so far."""

    seconds: int
    rounds: int
    machine: Machine
    measurements: list[Measurement] = msgspec.field(default_factory=list)
    failures: dict[str, str] = msgspec.field(default_factory=dict)
    """Why a scenario was not measured to the end."""
    outcomes: list[Outcome] = msgspec.field(default_factory=list)
    """What follows from the measurements, by row."""

    def of(self, scenario: str, case: Case) -> list[Figures]:
        """In the order of the rounds."""
        return [one.figures for one in self.measurements if (one.scenario, one.case) == (scenario, case)]

    def outcome(self, scenario: str, row: Row) -> Outcome | None:
        """None when no round has all that it needs."""
        ours = figures(self.of(scenario, row.ours), row.figure)
        theirs = None if row.theirs is None else figures(self.of(scenario, row.theirs), row.figure)
        # The last round may have been left in the middle.
        values = ours if theirs is None else [one / other for one, other in zip(ours, theirs, strict=False)]
        if not values:
            return None
        value = spread(values)
        return Outcome(
            scenario=scenario,
            row=row,
            ours=spread(ours),
            theirs=None if theirs is None else spread(theirs),
            values=values,
            value=value,
            met=row.kept_by(value.median),
        )


def figures(rounds: Sequence[Figures], figure: Figure) -> list[float]:
    """This figure of each round that has it."""
    values = (getattr(one, figure) for one in rounds)
    return [value for value in values if value is not None]
