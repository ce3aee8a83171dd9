"""A comparison as one page of HTML that needs nothing else."""

import math
from pathlib import Path

import msgspec

from bench import chart
from bench.chart import Axis, Chart, Series
from bench.compare.found import Comparison, Figure, Outcome, figures
from bench.compare.report import COST_COLUMNS, costs, each_round, machine_line, measured, one, outcomes, ratio, verdict
from bench.compare.scenarios import Scenario
from bench.figures import Spread
from bench.template import template

DECADES = 1.3
"""Half of a strip stands for a factor of ten to this power: from a twentieth of the promise to twenty times it."""


class Line(msgspec.Struct, frozen=True):
    """A row of the table of promises. `dots`: the rounds, in percent of a strip in whose middle the promise lies and
    whose right half keeps it; none where nothing is promised."""

    title: str
    ours: tuple[str, str]
    theirs: tuple[str, str]
    """The median, and the least and most."""
    ratio: str
    rounds: str
    promise: str
    verdict: str
    dots: list[float]


def render(found: Comparison, scenarios: list[Scenario]) -> str:
    """The page."""
    every = outcomes(found, scenarios)
    promised = [outcome for outcome in every if outcome.row.bar is not None]
    return template(Path(__file__).with_name("page.html")).render(
        found=found,
        kept=sum(outcome.met for outcome in promised),
        promised=len(promised),
        machine=machine_line(found),
        lines=[line(outcome) for outcome in every],
        columns=COST_COLUMNS,
        parts=[
            {
                "scenario": scenario,
                "costs": [(case, list(costs(rounds))) for case, rounds in measured(found, scenario)],
                "charts": [chart.inline(each) for each in charts(found, scenario)],
            }
            for scenario in scenarios
            if any(measured(found, scenario))
        ],
        chart_style=chart.style(),
    )


def line(outcome: Outcome) -> Line:
    """A row of the table of promises."""
    row = outcome.row
    middle, between = ratio(outcome)
    return Line(
        title=row.title,
        ours=_side(outcome.ours, row.figure),
        theirs=_side(outcome.theirs, row.figure),
        ratio=f"{middle} ({between})" if middle else between,
        rounds=each_round(outcome),
        promise=row.promise,
        verdict=verdict(outcome),
        dots=[place(value, row.bar, less_is_better=row.less_is_better) for value in outcome.values if row.bar],
    )


def _side(value: Spread | None, figure: Figure) -> tuple[str, str]:
    if value is None:
        return "", ""
    scale = 1e6 if figure == "bytes_per_second" else 1.0
    digits = 0 if figure == "per_second" else 1
    return one(value.median, figure), f"{value.least / scale:,.{digits}f} - {value.most / scale:,.{digits}f}"


def place(value: float, bar: float, *, less_is_better: bool) -> float:
    """Where a round stands in its strip, in percent."""
    decades = math.log10(max(value, 1e-9) / bar)
    kept = -decades if less_is_better else decades
    return round(50 + 50 * max(-1.0, min(1.0, kept / DECADES)), 2)


def charts(found: Comparison, scenario: Scenario) -> list[Chart]:
    """A chart for each load or pair of loads that a row compares, by round."""
    drawn: dict[tuple[object, ...], Chart] = {}
    for row in scenario.rows:
        cases = [case for case in (row.ours, row.theirs) if case is not None]
        alike = len({case.store for case in cases}) < len(cases)
        series = []
        for case in cases:
            values = figures(found.of(scenario.name, case), row.figure)
            points = [
                (float(number), value / 1e6 if row.figure == "bytes_per_second" else value)
                for number, value in enumerate(values, 1)
            ]
            series.append(Series(case.load.removeprefix("PUT ").removeprefix("GET ") if alike else case.store, points))
        if not all(each.points for each in series):
            continue
        unit = {"per_second": "operations a second", "bytes_per_second": "MB/s"}.get(row.figure, "ms")
        rounds = {float(number): str(number) for number in range(1, found.rounds + 1)}
        absolute = row.bar if row.theirs is None else None
        drawn[row.figure, *cases] = Chart(
            row.title, Axis("round", ticks=rounds, span=(0.5, found.rounds + 0.5)), Axis(unit), series, absolute
        )
    return list(drawn.values())
