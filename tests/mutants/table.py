"""What was caught, as a table for the eye and as one for docs/mutants.md."""

import re
from collections.abc import Sequence

from rich.table import Table

from tests.mutants.mutant import Mutant, Net
from tests.mutants.runner import MutantResult

_HEAD = ("mutant", "rules", *Net, "seconds")
_INTRODUCTION = """\
# Mutants

Bugs that are planted on purpose, one at a time, to show that the checks bite: `make mutants` runs each of them through
three nets and writes this table. {caught} of {total} are caught. The nets are the unit tests, the simulator with seeds
1 to {seeds}, and the explorer. A cell names the test, the first seed or the schedule that caught it;
"missed" is for a net that could have; "-" for one that cannot see such a bug, for it has no database, no sockets and no
process.
"""


def row(found: MutantResult) -> tuple[str, ...]:
    """The cells of one mutant."""
    cells = [_cell(found, net) for net in Net]
    return (found.mutant.name, _rules(found.mutant), *cells, f"{found.seconds:.0f}")


def to_look_at(all_found: Sequence[MutantResult]) -> Table:
    """For a terminal; what survived stands last, in red."""
    table = Table(*_HEAD)
    for found in sorted(all_found, key=lambda each: not each.caught):
        table.add_row(*row(found), style=None if found.caught else "red")
    return table


def to_keep(all_found: Sequence[MutantResult], seeds: int) -> str:
    """The document."""
    caught = sum(found.caught for found in all_found)
    lines = [_INTRODUCTION.format(caught=caught, total=len(all_found), seeds=seeds)]
    lines += ["| " + " | ".join(("mutant", "what it breaks", "rules", *Net)) + " |", "|---|---|---|---|---|---|"]
    for found in all_found:
        name, rules, *cells, _ = row(found)
        lines.append("| " + " | ".join((name, found.mutant.breaks, rules, *cells)) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: MutantResult, net: Net) -> str:
    if net not in found.mutant.nets:
        return "-"
    by = found.catches[net].by if net in found.catches else ""
    seed = re.match(r"seed \d+", by)
    return seed[0] if seed else by.partition("[")[0].replace("|", " ") or "missed"


def _rules(mutant: Mutant) -> str:
    return ", ".join(map(str, mutant.rules))
