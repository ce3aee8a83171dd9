"""A comparison as one self-contained HTML page."""

import math
from pathlib import Path

from bench.compare.model import ComparisonResult, ComparisonScenario, Figure, RowOutcome
from bench.compare.report import COST_COLUMNS, COST_NOTE, costs, each_round, in_unit, machine_line, measured, ratio
from bench.figures import Spread
from bench.templates import render_page

DECADES = 1.3
"""Half the length of a strip in decades: a strip reaches from a twentieth of the bar to twenty times the bar."""


def render(result: ComparisonResult, scenarios: list[ComparisonScenario]) -> str:
    """Return the page."""
    promised = [outcome for outcome in result.outcomes if outcome.row.bar is not None]
    return render_page(
        Path(__file__).with_name("page.html"),
        result=result,
        kept=sum(outcome.met for outcome in promised),
        promised=len(promised),
        machine=machine_line(result),
        lines=[_line(outcome) for outcome in result.outcomes],
        columns=COST_COLUMNS,
        note=COST_NOTE,
        parts=[
            (scenario, [(case, list(costs(rounds))) for case, rounds in measured(result, scenario)])
            for scenario in scenarios
            if any(measured(result, scenario))
        ],
    )


def _line(outcome: RowOutcome) -> dict[str, object]:
    """Return a row of the table of promises. `dots` are positions of rounds in a strip; from 50 on the bar is met."""
    row = outcome.row
    middle, between = ratio(outcome)
    dots = [position(value, row.bar, lower_is_better=row.lower_is_better) for value in outcome.values if row.bar]
    return {
        "title": row.title,
        "ours": _side(outcome.ours, row.figure),
        "theirs": _side(outcome.theirs, row.figure),
        "ratio": f"{middle} ({between})" if middle else between,
        "rounds": each_round(outcome),
        "promise": row.promise,
        "verdict": outcome.word,
        "dots": dots,
    }


def _side(value: Spread | None, figure: Figure) -> tuple[str, str]:
    """Return the median and the range as text."""
    if value is None:
        return "", ""
    scale = 1e6 if figure == "bytes_per_second" else 1.0
    digits = 0 if figure == "per_second" else 1
    return in_unit(value.median, figure), f"{value.least / scale:,.{digits}f} - {value.most / scale:,.{digits}f}"


def position(value: float, bar: float, *, lower_is_better: bool) -> float:
    """Return the position of a round in its strip, in percent."""
    decades = math.log10(max(value, 1e-9) / bar)
    kept = -decades if lower_is_better else decades
    return round(50 + 50 * max(-1.0, min(1.0, kept / DECADES)), 2)
