"""`python -m bench compare`."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.command import Json, finish, progress_bar, run, scratch_directory, write_json
from bench.compare.contest import compare as run_rounds
from bench.compare.contest import fdatasyncs_per_second, load_count
from bench.compare.model import ComparisonResult, ComparisonScenario, Measurement
from bench.compare.report import comparison_report
from bench.compare.scenarios import SCENARIOS
from bench.errors import BenchError
from bench.processes import check_platform

COMPARE = typer.Typer()


@COMPARE.command()
def compare(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Number of rounds; each measures every store.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="Length of each load.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"A scenario, may be repeated: {', '.join(one.name for one in SCENARIOS)}."),
    ] = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write an HTML page to FILE.")] = None,
) -> None:
    """Compare kvstore with etcd, with PySyncObj and with other sizes of itself, and check each promised ratio.

    A round of all scenarios takes about five minutes. After Ctrl-C, the figures so far are shown and written.
    """
    check_platform()
    if html is not None and importlib.util.find_spec("jinja2") is None:
        raise BenchError("--html needs Jinja: run `pip install --group bench` in the checkout, or omit --html")
    scenarios = _chosen(only)
    with scratch_directory() as directory:
        syncs = fdatasyncs_per_second(directory / "fdatasync")
        result = ComparisonResult(
            seconds=seconds, rounds=rounds, cores=os.cpu_count() or 1, fdatasyncs_per_second=syncs
        )
        with progress_bar() as bar:
            task = bar.add_task("loads", total=load_count(scenarios) * rounds)

            def show(one: Measurement) -> None:
                text = f"{one.scenario}: {one.case.store} {one.case.load} {one.figures.per_second:,.0f}/s"
                bar.update(task, advance=1, description=text)
                write_json(json, result)

            try:
                run(run_rounds(directory, scenarios, result, show))
            except KeyboardInterrupt:
                result.failures["the rest"] = "the run was interrupted"
    result.conclude(scenarios)
    if html is not None:
        from bench.compare.page import render  # noqa: PLC0415 - only --html needs Jinja

        html.write_text(render(result, scenarios))
    report = comparison_report(result, scenarios)
    finish(json, result, report, within_limits=result.within_limits(scenarios))


def _chosen(only: Sequence[str] | None) -> list[ComparisonScenario]:
    names = {scenario.name for scenario in SCENARIOS}
    if unknown := set(only or ()) - names:
        raise BenchError(f"--only {', '.join(sorted(unknown))}: the scenarios are {', '.join(sorted(names))}")
    return [scenario for scenario in SCENARIOS if not only or scenario.name in only]
