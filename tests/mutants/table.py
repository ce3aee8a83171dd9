"""The results of a run as a table for the terminal."""

import re
from collections.abc import Sequence

from rich.table import Table

from tests.mutants.mutant import Net
from tests.mutants.runner import MutantResult


def row(result: MutantResult) -> tuple[str, ...]:
    """Return the cells of one mutant: its name, its rules, what each net caught, and the seconds that it took.

    A cell names the test, the seed or the schedule that caught the mutant; "missed" stands for a net that could have
    caught it, "-" for a net that was not cast.
    """
    cells = [_cell(result, net) for net in Net]
    return (result.mutant.name, ", ".join(map(str, result.mutant.rules)), *cells, f"{result.seconds:.0f}")


def table(results: Sequence[MutantResult]) -> Table:
    """Return a table of all results, survivors first and in red."""
    shown = Table("mutant", "rules", *Net, "seconds")
    for result in sorted(results, key=lambda each: each.caught):
        shown.add_row(*row(result), style=None if result.caught else "red")
    return shown


def _cell(result: MutantResult, net: Net) -> str:
    if net not in result.catches:
        return "-"
    by = result.catches[net].by
    seed = re.match(r"seed \d+", by)
    return seed[0] if seed else by.partition("[")[0].replace("|", " ") or "missed"
