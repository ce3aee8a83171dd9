"""`python -m tests.simulation`: run seeds, repeat one, shrink what fails."""

import os
import sys
from random import SystemRandom
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.simulation.run import Run, Summary
from tests.simulation.scenario import Scenario, draw
from tests.simulation.search import SearchResult, search
from tests.simulation.shrink import VIOLATIONS, shrink
from tests.simulation.trace import LAST, EventTrace

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)


@app.command()
def main(  # noqa: PLR0917 - one for each option
    seed: Annotated[int | None, typer.Argument(help="Run the scenario of this seed alone.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Run this scenario, as it was printed.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 1000,
    first: Annotated[int | None, typer.Option(help="The first of them; drawn at random by default.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores by default.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print every event of the run.")] = False,
    digest: Annotated[bool, typer.Option("--digest", help="Print a hash of every event of the run.")] = False,
) -> None:
    """Simulate whole clusters of the production node under faults, each run drawn from one seed."""
    if scenario is not None:
        run_one(msgspec.json.decode(scenario, type=Scenario), trace=trace, digest=digest)
    elif seed is not None:
        run_one(draw(seed), trace=trace, digest=digest)
    else:
        run_many(seeds, SystemRandom().randrange(10**9) if first is None else first, jobs or os.cpu_count() or 1)


def run_one(scenario: Scenario, *, trace: bool, digest: bool) -> None:
    """Run a scenario; when it fails, say how, and shrink it."""
    events = EventTrace(last=None if trace else LAST, digest=digest)
    summary = attempt(scenario, events)
    if summary is None:
        explain(scenario)
        sys.exit(1)
    if trace:
        print_trace(events)
    console.print(events.digest() if digest else msgspec.json.encode(summary).decode())


def attempt(scenario: Scenario, events: EventTrace) -> Summary | None:
    """Run a scenario; None when it fails: then its last events and what was violated are printed."""
    try:
        return Run(scenario, events).run()
    except VIOLATIONS as error:
        print_trace(events)
        console.print(f"[red]{type(error).__name__}: {error}[/red]")
        return None


def run_many(seeds: int, first: int, jobs: int) -> None:
    """Run seeds over all cores, and shrink the first that fails."""
    console.print(f"seeds {first} to {first + seeds - 1}, {jobs} at a time")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("seeds", total=seeds)
        found = search(
            range(first, first + seeds),
            jobs,
            lambda done, failed: bar.update(task, completed=done, description=f"seeds, {failed} failed"),
        )
    print_found(found, seeds)
    if found.failed:
        explain(draw(min(found.failed)))
        sys.exit(1)


def print_found(found: SearchResult, seeds: int) -> None:
    """Counts and speed, and a line for each seed that failed."""
    total = found.summary
    simulated_s = total.simulated_ms / 1000
    console.print(
        f"{seeds} seeds, {len(found.failed)} failed: {simulated_s / 3600:,.1f} simulated hours in "
        f"{found.core_s / 3600:,.2f} core hours, {simulated_s / found.core_s:,.0f} simulated seconds in one of a core"
    )
    console.print(
        f"{total.operations:,} operations, {total.reads:,} reads and {total.writes:,} writes compared with the log, "
        f"{total.events:,} events of watches, {total.inside:,} pages of them inside a revision, "
        f"{total.compacted:,} watches compacted, {total.slots:,} slots, "
        f"{total.ballots:,} ballots, {total.installs:,} states installed, {total.changes:,} changes of members, "
        f"{total.leases:,} leases over, {total.steps:,} steps"
    )
    for what, counter in (("frames", total.frames), ("strikes", total.struck), ("timing", total.timing)):
        console.print(f"{what}: " + ", ".join(f"{count:,} {name}" for name, count in sorted(counter.items())))
    for seed, violation in sorted(found.failed.items()):
        console.print(f"[red]seed {seed} fails[/red]: {violation}\n  python -m tests.simulation {seed}")


def explain(scenario: Scenario) -> None:
    """Print the simplest scenario that fails like this one, its last events, and the command that repeats it."""
    with console.status("looking for the simplest scenario that fails like this"):
        simplest = shrink(scenario)
    attempt(simplest, EventTrace())
    text = msgspec.json.encode(simplest).decode()
    console.print(f"The simplest that fails like this, with {len(simplest.strikes)} strikes:")
    console.print(f"  python -m tests.simulation --scenario '{text}'", markup=False)


def print_trace(events: EventTrace) -> None:
    """The events that were kept."""
    for line in events.lines():
        console.print(line, markup=False)


if __name__ == "__main__":
    app()
