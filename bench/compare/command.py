"""`python -m bench compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.command import Json, check_page, progress_bar, run, write_json
from bench.compare import machine
from bench.compare.contest import compare as contest
from bench.compare.contest import loads_of
from bench.compare.found import Comparison, Measurement
from bench.compare.report import comparison_report, outcomes, within_limits
from bench.compare.scenarios import SCENARIOS, Scenario
from bench.errors import BenchError
from bench.processes import check_platform
from bench.report import print_report
from bench.scratch import scratch_directory

COMPARE = typer.Typer()


@COMPARE.command()
def compare(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each store is measured.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="Length of each load.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"A part of it, again for each: {', '.join(one.name for one in SCENARIOS)}."),
    ] = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with all of it to FILE, too.")] = None,
) -> None:
    """Compare with etcd and PySyncObj, and with itself at other sizes, in turn: each promise with its bar.

    All of it takes about five minutes a round. A run that is interrupted shows and writes what it has.
    """
    check_platform()
    check_page(html)
    chosen = _chosen(only)
    with scratch_directory() as directory:
        found = Comparison(seconds=seconds, rounds=rounds, machine=machine.measure(directory))
        try:
            _measure(directory, chosen, found, json, html)
        except KeyboardInterrupt:
            found.failures["the rest"] = "the run was interrupted"
    _write(found, chosen, json, html)
    print_report(comparison_report(found, chosen))
    raise typer.Exit(not within_limits(found, chosen))


def _chosen(only: Sequence[str] | None) -> list[Scenario]:
    names = {scenario.name for scenario in SCENARIOS}
    if unknown := set(only or ()) - names:
        raise BenchError(f"--only {', '.join(sorted(unknown))}: there is {', '.join(sorted(names))}")
    return [scenario for scenario in SCENARIOS if not only or scenario.name in only]


def _measure(directory: Path, chosen: list[Scenario], found: Comparison, json: Path | None, html: Path | None) -> None:
    with progress_bar() as bar:
        task = bar.add_task("loads", total=loads_of(chosen) * found.rounds)

        def tell(one: Measurement) -> None:
            text = f"{one.scenario} {one.round}: {one.case} {one.figures.per_second:,.0f}/s"
            bar.update(task, advance=1, description=text)

        run(contest(directory, chosen, found, tell, lambda: _write(found, chosen, json, html)))


def _write(found: Comparison, chosen: list[Scenario], json: Path | None, html: Path | None) -> None:
    found.outcomes = outcomes(found, chosen)
    write_json(json, found)
    if html is not None:
        from bench.compare.page import render  # noqa: PLC0415 - Jinja is an extra, the rest works without it

        html.write_text(render(found, chosen))
