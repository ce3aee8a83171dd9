"""`python -m tests.torture faults`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.command import Json, print_report, run, scratch_directory, write_json
from bench.errors import BenchError
from tests.torture.command import Clients, Seed, drawn, first_lines
from tests.torture.faults.page import render
from tests.torture.faults.plan import Fault
from tests.torture.faults.result import FaultsResult, RunVerdict, report_of
from tests.torture.faults.run import FaultsOptions, FaultsRun, impossible_faults, run_faults
from tests.torture.history import RecordedCall, by_key

FAULTS = typer.Typer()


@FAULTS.command()
def faults(
    *,
    fault: Annotated[
        list[Fault] | None,
        typer.Option(help="A fault to inject, may be repeated; by default all that are possible here."),
    ] = None,
    seconds: Annotated[int, typer.Option(min=5, max=86_400, help="Time during which faults are injected.")] = 60,
    kills: Annotated[int, typer.Option(min=0, help="Run until this number of SIGKILLs, not for --seconds.")] = 0,
    nodes: Annotated[int, typer.Option(min=3, max=15, help="Number of replicas.")] = 3,
    clients: Clients = 8,
    seed: Seed = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write an HTML page to FILE.")] = None,
) -> None:
    """Inject faults while clients work; check that answers are linearizable and no acknowledged write is lost."""
    options = FaultsOptions(
        faults=fault or [], seconds=seconds, kills=kills, nodes=nodes, clients=clients, seed=drawn(seed)
    )
    impossible = run(impossible_faults(options))
    with scratch_directory() as directory:
        result, calls = run(_run_with_status(directory, options, impossible))
        write_json(json, report_of(result))
        if html is not None:
            html.write_text(render(result))
        print_report(faults_report(result))
        if result.verdict is not RunVerdict.OK:
            history = (html or json or directory / "faults").with_suffix(".history.jsonl")
            write_history(history, calls, result)
            raise BenchError(f"the verdict is {result.verdict}, see above; the history of the clients is in {history}")


async def _run_with_status(
    directory: Path, options: FaultsOptions, impossible: dict[Fault, str]
) -> tuple[FaultsResult, list[RecordedCall]]:
    """Run, with a status line."""
    goal = f"{options.kills} kills" if options.kills else f"{options.seconds} s"
    # No refresh thread: starting a replica forks this process, which must have no other threads then.
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(run: FaultsRun) -> None:
            live.update(Text.from_markup(_status_line(run, goal)), refresh=True)

        def say(text: str) -> None:
            live.update(Text(text), refresh=True)

        return await run_faults(directory, options, impossible, show, say)


def _status_line(run: FaultsRun, goal: str) -> str:
    clients, nemesis = run.clients, run.nemesis
    fault = f"[red]{nemesis.under_way}[/red]" if nemesis.under_way else "[green]no fault[/green]"
    return (
        f"{run.now():.0f} s of {goal}: {fault}, leader {run.monitor.leader or 'unknown'}, {len(clients.calls)} calls, "
        f"{clients.answered} answered, {len(nemesis.faults)} faults, {nemesis.kills} kills"
    )


def write_history(path: Path, calls: Iterable[RecordedCall], result: FaultsResult) -> None:
    """Write calls in the order in which they began, one line of JSON each: the calls of the illegal key with the fewest
    calls, or all calls when no key is illegal."""
    illegal = result.history.illegal[:1]
    chosen = by_key(calls)[illegal[0]] if illegal else calls
    encoder = msgspec.json.Encoder()
    lines = (encoder.encode(call) for call in sorted(chosen, key=lambda call: call.called_ns))
    path.write_bytes(b"\n".join(lines) + b"\n")


def faults_report(result: FaultsResult) -> RenderableType:
    """Return the faults, the calls and the verdict."""
    table = Table("fault", "injected", "effective", "effect", box=SIMPLE_HEAD, show_edge=False)
    for fault in dict.fromkeys(each.fault for each in result.faults):
        made = [each for each in result.faults if each.fault is fault]
        effect = f"{sum(each.effect for each in made):,} {made[0].what}"
        table.add_row(fault, str(len(made)), str(sum(each.effect > 0 for each in made)), effect)
    history = result.history
    colour = "green" if result.verdict is RunVerdict.OK else "red"
    return Group(
        table,
        *(f"{fault} is impossible here: {why}" for fault, why in result.impossible.items()),
        f"{result.calls:,} calls of {result.clients} clients to {result.nodes} replicas in {result.seconds:.0f} s: "
        f"{result.count('answered'):,} answered, {result.count('unknown'):,} of unknown outcome, "
        f"{result.count('refused'):,} refused",
        f"{result.acknowledged:,} writes acknowledged, {len(history.lost)} lost; {result.kills} kills with SIGKILL",
        f"{history.keys:,} keys: {len(history.illegal)} not linearizable, {len(history.unverified)} unverified; "
        f"{len(history.backwards)} revisions went back",
        f"[{colour}]{result.verdict}[/]: {result.verdict.sentence}",
        *first_lines([f"{verdict}: {why}" for verdict, why in result.reasons()]),
        f"to repeat: {result.command}",
    )
