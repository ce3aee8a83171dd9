"""The measurements of a comparison, and the outcome of each row."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.figures import Spread, spread

Figure = Literal["per_second", "bytes_per_second", "p50_ms", "p99_ms", "p999_ms"]
"""The figure that a row compares."""


class StoreFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one store. CPU time, fsyncs and memory are those of all members together."""

    per_second: float
    bytes_per_second: float
    """Bytes of values per second."""
    errors: int
    p50_ms: float | None
    """Latencies are None when the generator does not report them."""
    p99_ms: float | None
    p999_ms: float | None
    cpu_us: float
    """CPU microseconds per operation."""
    fsyncs_per_second: float
    batch: float | None
    """Mean number of writes for each fsync of the leader; None for reads and without fsyncs."""
    resident_mib: float


class Case(msgspec.Struct, frozen=True):
    """Names of a store and of a load on it."""

    store: str
    load: str


class Row(msgspec.Struct, frozen=True):
    """A row of the comparison: a figure of `ours`, or its ratio to the figure of `theirs` in each round. A rate must be
    at least `bar`, a latency at most `bar`; a row without a bar is only shown."""

    title: str
    figure: Figure
    ours: Case
    theirs: Case | None
    bar: float | None

    @property
    def lower_is_better(self) -> bool:
        """Whether the figure is a latency."""
        return self.figure.endswith("_ms")

    @property
    def promise(self) -> str:
        """The bar as text."""
        if self.bar is None:
            return ""
        unit = "" if self.theirs else {"per_second": " /s", "bytes_per_second": " B/s"}.get(self.figure, " ms")
        return f"{'<=' if self.lower_is_better else '>='} {self.bar:g}{unit}"


class ComparisonScenario(msgspec.Struct, frozen=True):
    """Stores that are measured in turn, each with its loads in this order, and the rows computed from them."""

    name: str
    about: str
    """Conditions of the measurement, for the report."""
    stores: dict[str, tuple[str, ...]]
    """Loads by store."""
    rows: tuple[Row, ...]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one store in one round."""

    scenario: str
    round: int
    case: Case
    figures: StoreFigures


class RowOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a row over all rounds. `values` has the ratio, or the figure of ours, in each round."""

    scenario: str
    row: Row
    ours: Spread
    theirs: Spread | None
    values: list[float]
    value: Spread
    """Spread of `values`. The two loads of a ratio follow each other closely, so the median of ratios is robust."""

    @property
    def met(self) -> bool:
        """Whether the median meets the bar; true without a bar."""
        bar, median = self.row.bar, self.value.median
        return bar is None or (median <= bar if self.row.lower_is_better else median >= bar)

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return "" if self.row.bar is None else "kept" if self.met else "MISSED"


class ComparisonResult(msgspec.Struct, kw_only=True):
    """All measurements so far."""

    seconds: int
    rounds: int
    cores: int
    fdatasyncs_per_second: float
    """Rate at which one writer overwrites and syncs a block of a file on this disk."""
    measurements: list[Measurement] = []
    failures: dict[str, str] = {}
    """Reasons for incomplete scenarios, by name of the scenario."""
    outcomes: list[RowOutcome] = []

    def of(self, scenario: str, case: Case) -> list[StoreFigures]:
        """Return the figures of a case in the order of the rounds."""
        return [one.figures for one in self.measurements if (one.scenario, one.case) == (scenario, case)]

    def conclude(self, scenarios: Sequence[ComparisonScenario]) -> None:
        """Compute the outcomes of all rows that have at least one complete round."""
        rows = [self._outcome(scenario.name, row) for scenario in scenarios for row in scenario.rows]
        self.outcomes = [outcome for outcome in rows if outcome is not None]

    def within_limits(self, scenarios: Sequence[ComparisonScenario]) -> bool:
        """Return whether every row was measured and every promise is kept."""
        return len(self.outcomes) == sum(len(each.rows) for each in scenarios) and all(one.met for one in self.outcomes)

    def _outcome(self, scenario: str, row: Row) -> RowOutcome | None:
        ours = figures(self.of(scenario, row.ours), row.figure)
        theirs = None if row.theirs is None else figures(self.of(scenario, row.theirs), row.figure)
        # The last round may be incomplete.
        values = ours if theirs is None else [one / other for one, other in zip(ours, theirs, strict=False)]
        if not values:
            return None
        return RowOutcome(
            scenario=scenario,
            row=row,
            ours=spread(ours),
            theirs=None if theirs is None else spread(theirs),
            values=values,
            value=spread(values),
        )


def figures(rounds: Sequence[StoreFigures], figure: str) -> list[float]:
    """Return a figure of each round, without the rounds that do not have it."""
    values = (getattr(one, figure) for one in rounds)
    return [value for value in values if value is not None]
