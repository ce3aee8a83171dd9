"""A comparison in the terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bench.compare.found import Case, Comparison, Figure, Figures, Outcome
from bench.compare.scenarios import Scenario
from bench.figures import spread
from bench.report import figure_table


def comparison_report(found: Comparison, scenarios: Sequence[Scenario]) -> RenderableType:
    """What the machine does, the promises, and what each load cost."""
    return Group(
        machine_line(found),
        f"medians of {found.rounds} rounds of {found.seconds} s; the number in a name is that of connections",
        _promises(found, scenarios),
        *(f"round by round, {outcome.row.title}: {each_round(outcome)}" for outcome in outcomes(found, scenarios)),
        "latencies in ms; CPU in µs for an operation, fsyncs and memory of all members together; batch: writes for an "
        "fsync of the leader",
        *(_loads(found, scenario) for scenario in scenarios if any(measured(found, scenario))),
        *(f"[red]{name} was not measured[/red]: {escape(why)}" for name, why in found.failures.items()),
    )


def outcomes(found: Comparison, scenarios: Sequence[Scenario]) -> list[Outcome]:
    """Those of all rows of which there is a round."""
    all_rows = (found.outcome(scenario.name, row) for scenario in scenarios for row in scenario.rows)
    return [outcome for outcome in all_rows if outcome is not None]


def within_limits(found: Comparison, scenarios: Sequence[Scenario]) -> bool:
    """True when everything was measured, and every promise is kept."""
    kept = outcomes(found, scenarios)
    return len(kept) == sum(len(each.rows) for each in scenarios) and all(one.met for one in kept)


def machine_line(found: Comparison) -> str:
    """Disk and loopback."""
    machine = found.machine
    disk, loopback = spread(machine.fdatasyncs_per_second), spread(machine.round_trips_per_second)
    return (
        f"this machine, {machine.cores} cores: {disk.median:,.0f} fdatasync/s of one writer ({disk.least:,.0f} to "
        f"{disk.most:,.0f}), {loopback.median:,.0f} round trips/s over loopback ({loopback.least:,.0f} to "
        f"{loopback.most:,.0f})"
    )


def one(value: float, figure: Figure) -> str:
    """A figure in its unit."""
    if figure == "bytes_per_second":
        return f"{value / 1e6:,.1f} MB/s"
    if figure == "per_second":
        return f"{value:,.0f}"
    return f"{value:.2f} ms" if value < 100 else f"{value:,.0f} ms"


def ratio(outcome: Outcome) -> tuple[str, str]:
    """Its median, least and most; of a row without another side the figure's own least and most."""
    value = outcome.value
    if outcome.theirs is None:
        return "", f"{value.least:.3g} - {value.most:.3g}"
    return f"{value.median:.2f}", f"{value.least:.2f} - {value.most:.2f}"


def each_round(outcome: Outcome) -> str:
    """The ratio of each round, or our figure."""
    return ", ".join(f"{value:.2f}" for value in outcome.values)


def verdict(outcome: Outcome) -> str:
    """In a word."""
    if outcome.row.bar is None:
        return ""
    return "kept" if outcome.met else "MISSED"


def _promises(found: Comparison, scenarios: Sequence[Scenario]) -> Table:
    table = figure_table("", "ours", "other", "ratio", "range", "promised", "")
    for outcome in outcomes(found, scenarios):
        row = outcome.row
        theirs = "" if outcome.theirs is None else one(outcome.theirs.median, row.figure)
        colour = "green" if outcome.met else "red"
        word = verdict(outcome)
        table.add_row(
            *(row.title, one(outcome.ours.median, row.figure), theirs, *ratio(outcome), row.promise),
            f"[{colour}]{word}[/{colour}]" if word else "",
        )
    return table


def measured(found: Comparison, scenario: Scenario) -> Iterator[tuple[Case, list[Figures]]]:
    """What was measured of a scenario, by store and load."""
    cases = dict.fromkeys(one.case for one in found.measurements if one.scenario == scenario.name)
    for case in cases:
        yield case, found.of(scenario.name, case)


def _loads(found: Comparison, scenario: Scenario) -> Table:
    table = figure_table(scenario.name, *COST_COLUMNS)
    store = ""
    for case, rounds in measured(found, scenario):
        if case.store != store:
            store = case.store
            table.add_row(f"[bold]{store}[/bold]")
        table.add_row(f" {case.load}", *costs(rounds))
    return table


COST_COLUMNS = ("per s", "p50", "p99", "p99.9", "CPU", "fsync/s", "batch", "MiB", "bad")


def costs(rounds: Sequence[Figures]) -> Iterator[str]:
    """The medians of a load: speed, latencies, CPU for an operation, fsyncs, writes for each of the leader's, MiB."""

    def median(name: str, digits: int) -> str:
        values = [value for value in (getattr(figures, name) for figures in rounds) if value is not None]
        return f"{spread(values).median:,.{digits}f}" if values else "-"

    yield median("per_second", 0)
    for latency in ("p50_ms", "p99_ms", "p999_ms"):
        yield median(latency, 2)
    yield median("cpu_us", 0)
    yield median("fsyncs_per_second", 0)
    yield median("batch", 1)
    yield median("resident_mib", 0)
    yield str(sum(figures.errors for figures in rounds))
