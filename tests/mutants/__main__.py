"""`python -m tests.mutants`: plant bugs one at a time and check that the tests, the simulation or the exploration find
each."""

import signal
import sys
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.mutants import nets
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant, Net
from tests.mutants.runner import BaselineError, MutantResult, Runner
from tests.mutants.score import Results, score
from tests.mutants.table import row, table


def main(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Mutants to try; default: all.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Mutants tried at the same time.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds that the simulation runs for each mutant.")] = 100,
    only: Annotated[
        str,
        typer.Option(
            help="Run these checks alone, such as `simulation,exploration`, and stop at the first that finds it."
        ),
    ] = "",
    json: Annotated[
        Path | None, typer.Option(help="File of the results; mutants with a result in it are done.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Begin no mutant after this time; repeat the command to go on.")] = inf,
) -> None:
    """Plant each mutant in a copy of the tree, and run unit tests, simulation and exploration on it.

    Exit status: 0 if all were caught, 1 if one survived or the code fails without a mutant, 2 for an unknown name.
    """
    if unknown := set(names or ()) - MUTANTS.keys():
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; the mutants are {', '.join(MUTANTS)}")
    chosen = [MUTANTS[name] for name in names] if names else list(MUTANTS.values())
    alone = _nets(only)
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the commands, too
    found = _try(chosen, Results(json), Runner(jobs, seeds, alone), console, seconds=minutes * 60, alone=alone)
    console.print(table(found))
    if alone:
        console.print(score(chosen, found))
    survivors = [result.mutant.name for result in found if not result.caught]
    console.print(f"{len(found) - len(survivors)} of {len(found)} caught", *survivors)
    raise typer.Exit(1 if survivors else 0)


def _nets(names: str) -> frozenset[Net]:
    try:
        return frozenset(map(Net, filter(None, names.split(","))))
    except ValueError as error:
        raise typer.BadParameter(f"{error}; the checks are {', '.join(Net)}") from error


def _try(
    chosen: list[Mutant], known: Results, runner: Runner, console: Console, *, seconds: float, alone: frozenset[Net]
) -> list[MutantResult]:
    """Try the mutants without a known result, and return the results of all."""
    new = [mutant for mutant in chosen if mutant not in known and nets.casts(mutant, 1, alone)]
    with runner:
        try:
            runner.measure(new)
        except BaselineError as error:
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from error
        for number, result in enumerate(runner.run(new, seconds=seconds), start=1):
            known.add(result)
            console.print(f"{number}/{len(new)}", *row(result), style=None if result.caught else "red")
    return known.of(chosen)


if __name__ == "__main__":
    typer.run(main)
