"""`python -m tests.mutants`: plant bugs one at a time and check that the tests, the simulation or the exploration find
each."""

from typing import Annotated

import typer
from rich.console import Console

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import BaselineError, Runner
from tests.mutants.table import row, table


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Mutants to try; default: all.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Mutants tried at the same time.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds that the simulation runs for each mutant.")] = 100,
) -> None:
    """Plant each mutant in a copy of the tree, and run unit tests, simulation and exploration on it.

    Exit status: 0 if all were caught, 1 if one survived or the code fails without a mutant, 2 for an unknown name.
    """
    if unknown := set(names or ()) - MUTANTS.keys():
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; the mutants are {', '.join(MUTANTS)}")
    chosen = [MUTANTS[name] for name in names] if names else list(MUTANTS.values())
    console = Console(highlight=False, soft_wrap=True)
    with Runner(jobs, seeds) as runner:
        try:
            runner.measure(chosen)
        except BaselineError as error:
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from error
        results = {}
        for result in runner.run(chosen):
            results[result.mutant.name] = result
            console.print(f"{len(results)}/{len(chosen)}", *row(result), style=None if result.caught else "red")
    in_order = [results[mutant.name] for mutant in chosen]
    console.print(table(in_order))
    survivors = [result.mutant.name for result in in_order if not result.caught]
    console.print(f"{len(in_order) - len(survivors)} of {len(in_order)} caught", *survivors)
    raise typer.Exit(1 if survivors else 0)


if __name__ == "__main__":
    typer.run(main)
