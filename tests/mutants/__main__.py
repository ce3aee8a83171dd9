"""`python -m tests.mutants`: plant bugs, and see whether the checks find them."""

from typing import Annotated

import typer
from rich.console import Console

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import ROOT, BaselineError, Runner
from tests.mutants.table import row, to_keep, to_look_at

DOCUMENT = ROOT / "docs" / "mutants.md"


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which mutants; all by default.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many at once.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds the simulator is given for each.")] = 100,
    write: Annotated[
        bool, typer.Option("--write", help="Write the table to docs/mutants.md; for all of them.")
    ] = False,
) -> None:
    """Plant each mutant in a copy of the tree and cast three nets for it: unit tests, simulation, exploration. Exit
    status: 0 if all were caught, 1 if any survived or sound code does not pass, 2 on a wrong name."""
    if unknown := set(names or ()) - MUTANTS.keys():
        raise typer.BadParameter(f"no such mutant: {', '.join(sorted(unknown))}; there are {', '.join(MUTANTS)}")
    if write and names:
        raise typer.BadParameter("--write is for the table of all mutants: leave the names out")
    chosen = [MUTANTS[name] for name in names] if names else list(MUTANTS.values())
    console = Console(highlight=False, soft_wrap=True)
    with Runner(jobs, seeds) as runner:
        try:
            runner.measure(chosen)
        except BaselineError as error:
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from error
        found = {}
        for each in runner.run(chosen):
            found[each.mutant.name] = each
            console.print(f"{len(found)}/{len(chosen)}", *row(each), style=None if each.caught else "red")
    in_order = [found[mutant.name] for mutant in chosen]
    console.print(to_look_at(in_order))
    if write:
        DOCUMENT.write_text(to_keep(in_order, seeds))
    survivors = [each.mutant.name for each in in_order if not each.caught]
    console.print(f"{len(in_order) - len(survivors)} of {len(in_order)} caught", *survivors)
    raise typer.Exit(1 if survivors else 0)


if __name__ == "__main__":
    typer.run(main)
