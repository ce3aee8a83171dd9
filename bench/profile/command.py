"""`python -m bench profile`."""

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape

from bench.command import Json, run, write_json
from bench.load.command import Connections, Nodes, Reads, ValueBytes
from bench.load.order import Mix
from bench.load.run import Ask
from bench.processes import check_platform
from bench.profile.measure import Profiled, find_py_spy, measure
from bench.report import figure_table, print_report
from bench.scratch import scratch_directory

PROFILE = typer.Typer()
FUNCTIONS = 15


@PROFILE.command()
def profile(
    *,
    connections: Connections = 64,
    reads: Reads = 0,
    value_bytes: ValueBytes = 100,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="PUTs in each request: several in a transaction.")] = 1,
    nodes: Nodes = 3,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Length of each of two loads.")] = 10.0,
    json: Json = None,
) -> None:
    """Where the microseconds of a request go on the leader, by stage: CPU time from /proc, samples from py-spy."""
    check_platform()
    program = find_py_spy()
    mix = Mix(reads=reads, value_bytes=value_bytes, batch=batch)
    ask = Ask(mix=mix, urls=[], connections=connections, seconds=seconds)
    with scratch_directory() as directory:
        console = Console(stderr=True, highlight=False)
        found = run(measure(program, directory, ask, nodes, lambda text: console.print(text, style="dim")))
    write_json(json, found)
    print_report(profile_report(found))


def profile_report(found: Profiled) -> RenderableType:
    """The stages, and the functions in which most samples were."""
    stages = figure_table("stage", " share", " µs a request")
    for stage, cost_us in found.stages_us.items():
        stages.add_row(stage, f"{cost_us / found.cpu_us:.1%}", f"{cost_us:.1f}")
    stages.add_row("[bold]all[/bold]", "", f"[bold]{found.cpu_us:.1f}[/bold]")
    functions = figure_table("innermost function", " share", " µs a request")
    for function, cost_us in islice(found.functions_us.items(), FUNCTIONS):
        functions.add_row(escape(function), f"{cost_us / found.cpu_us:.1%}", f"{cost_us:.1f}")
    return Group(
        f"leader, {found.connections} connections, {found.reads} % GET: {found.per_second:,.0f} requests a second, "
        f"{found.sampled_per_second:,.0f} while it was sampled; {found.samples:,} samples",
        stages,
        functions,
        "CPU time of each thread by /proc, divided as it was sampled; what is done in C counts as the Python function "
        "that called it",
    )
