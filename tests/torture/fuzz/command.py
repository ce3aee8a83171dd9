"""`python -m tests.torture fuzz`."""

import secrets
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from bench.command import Json, Seed, progress_bar, run, write_json
from bench.errors import BenchError
from bench.load.command import Nodes
from bench.processes import check_platform
from bench.report import figure_table, print_report, verdict
from bench.scratch import scratch_directory
from tests.torture.fuzz.found import GROWTH_LIMIT_MB, Fuzz
from tests.torture.fuzz.run import measure

FUZZ = typer.Typer()


@FUZZ.command()
def fuzz(
    requests: Annotated[int, typer.Option(min=100, help="How many malformed requests.")] = 100_000,
    nodes: Nodes = 1,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Throw malformed requests at replicas: do they stay up, answer rightly meanwhile, and keep their memory?"""
    check_platform()
    drawn = secrets.randbelow(1 << 32) if seed is None else seed
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("requests", total=requests)
        found = run(
            measure(
                directory, requests=requests, nodes=nodes, seed=drawn, on_attempt=lambda: bar.update(task, advance=1)
            )
        )
        bar.stop()
        write_json(json, found)
        print_report(fuzz_report(found))
        if found.faults:
            raise BenchError(f"this must never happen, see above: --seed {found.seed} repeats it, please report it")
    raise typer.Exit(not found.within_limits)


def fuzz_report(found: Fuzz) -> RenderableType:
    """What was sent and answered, the memory, and whatever must not be."""
    table = figure_table("answered by", "answers")
    for status, count in found.statuses.items():
        table.add_row(status, f"{count:,}")
    first, last = found.memory[0].resident_mb, found.memory[-1].resident_mb
    memory = ", ".join(f"{name} {first[name]:.1f} MB before, {last[name]:.1f} MB after" for name in first)
    faults = [
        f"[red]{each.family} {each.number}[/red]: {each.why}\n  {each.sent}".replace("[", r"\[")
        for each in found.faults
    ]
    return Group(
        table,
        f"{found.attempts:,} malformed requests in {found.seconds:.0f} s ({found.attempts / found.seconds:,.0f}/s), "
        f"seed {found.seed}; {found.closed:,} connections closed by the replica, {found.cut:,} cut by the client, "
        f"{found.unanswered:,} given up while the replica waited for the rest",
        f"{found.checks:,} values written and read back meanwhile, the slowest in {found.slowest_ms:.0f} ms",
        f"resident: {memory}; {found.peak_mb:.1f} MB more at most meanwhile",
        *faults,
        verdict("no answer that must not be", met=not found.faults),
        verdict(
            f"resident memory grows by < {GROWTH_LIMIT_MB:.0f} MB: {found.growth_mb:.1f}",
            met=found.growth_mb < GROWTH_LIMIT_MB,
        ),
    )
