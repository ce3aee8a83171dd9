"""The mutation score: how many of the mutants that some nets could see did they catch, for each rule and in all."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from rich.table import Table

from tests.mutants.mutant import Mutant, Net
from tests.mutants.nets import Catch
from tests.mutants.runner import MutantResult
from tests.mutants.sight import blindness


class Results:
    """The results of a run in a JSON file, so that a run that was ended goes on where it was."""

    def __init__(self, path: Path | None) -> None:
        """Load the results in the file at `path`, if there is one."""
        self._path = path
        self._catches: dict[str, dict[Net, Catch]] = {}
        if path is not None and path.exists():
            self._catches = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[Net, Catch]])

    def __contains__(self, mutant: Mutant) -> bool:
        return mutant.name in self._catches

    def add(self, result: MutantResult) -> None:
        """Add a result, and store all results."""
        self._catches[result.mutant.name] = result.catches
        if self._path is not None:
            self._path.write_bytes(msgspec.json.format(msgspec.json.encode(self._catches)))

    def of(self, mutants: Iterable[Mutant]) -> list[MutantResult]:
        """Return the results of these mutants, of those that have one."""
        return [MutantResult(mutant, self._catches[mutant.name]) for mutant in mutants if mutant in self]


def score(mutants: Iterable[Mutant], results: Iterable[MutantResult]) -> Table:
    """Return a table of the score for each rule, for mutants without a rule, and in all. Mutants that no simulation
    could see are counted by themselves."""
    caught = {result.mutant.name: result.caught for result in results}
    table = Table("rule", "caught", "of", "missed", "not to be seen")
    every = list(mutants)
    for rule in sorted({rule for mutant in every for rule in mutant.rules}):
        table.add_row(str(rule), *_cells([mutant for mutant in every if rule in mutant.rules], caught))
    table.add_row("none", *_cells([mutant for mutant in every if not mutant.rules], caught))
    table.add_row("all", *_cells(every, caught))
    return table


def _cells(mutants: list[Mutant], caught: dict[str, bool]) -> tuple[str, ...]:
    tried = [mutant for mutant in mutants if mutant.name in caught]
    missed = [mutant.name for mutant in tried if not caught[mutant.name]]
    blind = sum(bool(blindness(mutant)) for mutant in mutants)
    return str(len(tried) - len(missed)), str(len(tried)), ", ".join(missed), str(blind or "")
