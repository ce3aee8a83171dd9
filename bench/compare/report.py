"""A comparison as tables in the terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bench.command import figure_table
from bench.compare.model import Case, ComparisonResult, ComparisonScenario, Figure, RowOutcome, StoreFigures, figures
from bench.figures import spread

COST_COLUMNS = ("per s", "p50", "p99", "p99.9", "CPU", "fsync/s", "batch", "MiB", "errors")
COST_NOTE = (
    "latencies in ms; CPU: µs per operation; batch: writes per fsync of the leader; "
    "CPU, fsyncs and memory are those of all members"
)


def comparison_report(result: ComparisonResult, scenarios: Sequence[ComparisonScenario]) -> RenderableType:
    """Return the promises, their rounds, and the cost of each load."""
    return Group(
        machine_line(result),
        _promises(result),
        *(f"round by round, {one.row.title}: {each_round(one)}" for one in result.outcomes),
        COST_NOTE,
        *(_loads(result, scenario) for scenario in scenarios if any(measured(result, scenario))),
        *(f"[red]{name} is incomplete[/red]: {escape(why)}" for name, why in result.failures.items()),
    )


def machine_line(result: ComparisonResult) -> str:
    """Return the conditions of the run."""
    return (
        f"{result.cores} cores, {result.fdatasyncs_per_second:,.0f} fdatasync/s of one writer; medians of "
        f"{result.rounds} rounds of {result.seconds} s; the number in a load's name is its number of connections"
    )


def in_unit(value: float, figure: Figure) -> str:
    """Return a figure with its unit."""
    if figure == "bytes_per_second":
        return f"{value / 1e6:,.1f} MB/s"
    if figure == "per_second":
        return f"{value:,.0f}"
    return f"{value:.2f} ms" if value < 100 else f"{value:,.0f} ms"


def ratio(outcome: RowOutcome) -> tuple[str, str]:
    """Return median and range of the ratio; for a row without `theirs`, no median and the range of the figure."""
    value = outcome.value
    if outcome.theirs is None:
        return "", f"{value.least:.3g} - {value.most:.3g}"
    return f"{value.median:.2f}", f"{value.least:.2f} - {value.most:.2f}"


def each_round(outcome: RowOutcome) -> str:
    """Return the value of each round."""
    return ", ".join(f"{value:.2f}" for value in outcome.values)


def _promises(result: ComparisonResult) -> Table:
    table = figure_table("", "ours", "other", "ratio", "range", "promised", "")
    for one in result.outcomes:
        row = one.row
        theirs = "" if one.theirs is None else in_unit(one.theirs.median, row.figure)
        colour = "green" if one.met else "red"
        word = f"[{colour}]{one.word}[/{colour}]" if one.word else ""
        table.add_row(row.title, in_unit(one.ours.median, row.figure), theirs, *ratio(one), row.promise, word)
    return table


def measured(result: ComparisonResult, scenario: ComparisonScenario) -> Iterator[tuple[Case, list[StoreFigures]]]:
    """Yield each measured case of a scenario, with its figures in all rounds."""
    cases = dict.fromkeys(one.case for one in result.measurements if one.scenario == scenario.name)
    for case in cases:
        yield case, result.of(scenario.name, case)


def _loads(result: ComparisonResult, scenario: ComparisonScenario) -> Table:
    table = figure_table(scenario.name, *COST_COLUMNS)
    store = ""
    for case, rounds in measured(result, scenario):
        if case.store != store:
            store = case.store
            table.add_row(f"[bold]{store}[/bold]")
        table.add_row(f" {case.load}", *costs(rounds))
    return table


def costs(rounds: Sequence[StoreFigures]) -> Iterator[str]:
    """Yield the cells of COST_COLUMNS, medians of the rounds."""
    digits = {
        "per_second": 0,
        "p50_ms": 2,
        "p99_ms": 2,
        "p999_ms": 2,
        "cpu_us": 0,
        "fsyncs_per_second": 0,
        "batch": 1,
        "resident_mib": 0,
    }
    for name, count in digits.items():
        values = figures(rounds, name)
        yield f"{spread(values).median:,.{count}f}" if values else "-"
    yield str(sum(each.errors for each in rounds))
