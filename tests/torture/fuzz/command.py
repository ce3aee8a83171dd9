"""`python -m tests.torture fuzz`."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from bench.command import Json, Nodes, figure_table, finish, progress_bar, run, scratch_directory, verdict
from bench.errors import BenchError
from bench.processes import check_platform
from tests.torture.command import Seed, drawn
from tests.torture.fuzz.run import GROWTH_LIMIT_MB, FuzzResult, measure

FUZZ = typer.Typer()


@FUZZ.command()
def fuzz(
    requests: Annotated[int, typer.Option(min=100, help="Number of malformed requests.")] = 100_000,
    nodes: Nodes = 1,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Send malformed requests: replicas must stay up, answer good requests meanwhile, and not grow in memory."""
    check_platform()
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("requests", total=requests)

        def show() -> None:
            bar.update(task, advance=1)

        result = run(measure(directory, requests=requests, nodes=nodes, seed=drawn(seed), on_attempt=show))
        bar.stop()
        small = result.growth_mb < GROWTH_LIMIT_MB
        finish(json, result, fuzz_report(result), within_limits=small or bool(result.violations))
        if result.violations:
            raise BenchError(f"see the violations above: --seed {result.seed} repeats them, please report this bug")


def fuzz_report(result: FuzzResult) -> RenderableType:
    """Return the answers, the memory and the violations."""
    answers = figure_table("status", "answers")
    for status, count in result.statuses.items():
        answers.add_row(status, f"{count:,}")
    memory = figure_table("resident MB", *result.memory[0].resident_mb)
    for name, sample in (("before", result.memory[0]), ("after", result.memory[-1])):
        memory.add_row(name, *(f"{size:.1f}" for size in sample.resident_mb.values()))
    violations = [
        f"[red]{each.family} {each.number}[/red]: " + f"{each.why}\n  {each.sent}".replace("[", r"\[")
        for each in result.violations
    ]
    return Group(
        answers,
        f"{result.attempts:,} malformed requests, {result.attempts / result.seconds:,.0f} per second, "
        f"seed {result.seed}; {result.closed:,} connections closed by the replica, {result.cut:,} cut by the client, "
        f"{result.unanswered:,} given up while the replica waited for more",
        f"{result.checks:,} values written and read back meanwhile, the slowest in {result.slowest_ms:.0f} ms",
        memory,
        *violations,
        verdict("no wrong answer", met=not result.violations),
        verdict(
            f"memory grows by < {GROWTH_LIMIT_MB:.0f} MB ({result.growth_mb:.1f} MB)",
            met=result.growth_mb < GROWTH_LIMIT_MB,
        ),
    )
