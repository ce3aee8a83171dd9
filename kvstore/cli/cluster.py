"""`kvstore cluster`."""

import asyncio
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kvstore.cli.cluster_events import ChangeDetector, Observation
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.client import Client
from kvstore.server.config import voters_warnings
from kvstore.testing.cluster_directory import ClusterError, LocalReplica
from kvstore.testing.process_cluster import NotReadyError, ProcessCluster
from kvstore.testing.replica_status import status_of

POLL_S = 0.1
UNREACHABLE_S = 1.5
"""A replica that has not answered, and a missing leader, are reported after this time."""
FIRST_REPORT_S = 10.0
"""A cluster that is not ready is reported after this time, and again each `NEXT_REPORT_S`."""
NEXT_REPORT_S = 30.0


def cluster(
    nodes: Annotated[int, typer.Option(min=1, max=15, help="Number of replicas; fixed once there is data.")] = 3,
    port: Annotated[int, typer.Option(min=1, max=65500, help="Client port of n1; n2 has the next one.")] = 8001,
    peer_port: Annotated[int, typer.Option(min=1, max=65500, help="Peer port of n1; n2 has the next one.")] = 9001,
    data: Annotated[
        Path, typer.Option(help="Directory for data, logs and settings; the next run continues with its data.")
    ] = Path("data"),
) -> None:
    """Run a cluster on this machine until Ctrl-C.

    Prints a line for each change: a replica that dies, the majority lost, a new leader. A replica that dies is not
    restarted.
    """
    console = Console(highlight=False, soft_wrap=True)
    for warning in voters_warnings(nodes):
        console.print(f"[yellow]warning:[/yellow] {warning}")
    local = ProcessCluster(nodes, data, port=port, peer_port=peer_port)
    status = ExitStatus.USAGE
    try:
        with local.locked():
            local.prepare()
            status = ExitStatus.FAILED
            asyncio.run(_run(local, console))
    except (ClusterError, OSError) as error:
        fail(error, status)


async def _run(local: ProcessCluster, console: Console) -> None:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    local.start()
    reporting = asyncio.create_task(_report(local, console))
    stopping = asyncio.create_task(asked_to_stop.wait())
    try:
        await asyncio.wait({reporting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if reporting.done():
            await reporting  # raises its error
    finally:
        reporting.cancel()
        stopping.cancel()
        console.print("stopping")
        for name in await local.stop():
            log = local.replicas[name].log
            console.print(f"[red]{name} did not stop in time and was killed[/red]; its output is in {log}")
        console.print(f"stopped; the data stays in {local.directory}")


async def _report(local: ProcessCluster, console: Console) -> None:
    leader = await until_ready(local, console)
    _greet(local, leader, console)
    changes = ChangeDetector(
        local.replicas, grace_s=UNREACHABLE_S, start_command=lambda name: start_command(local.replicas[name])
    )
    seen: dict[str, Observation] = {}
    async with local.status_client() as client, asyncio.TaskGroup() as polling:
        for place in local.replicas.values():
            seen[place.name] = Observation(place.name, None, time.monotonic())
            polling.create_task(_poll(client, place, seen))
        while True:
            exits = {name: local.exit_of(name) for name in seen}
            for line in changes.observe(time.monotonic(), seen, exits):
                console.print(f"[dim]{_time_of_day()}[/dim] {line}")
            await asyncio.sleep(POLL_S)


async def until_ready(local: ProcessCluster, console: Console) -> str:
    """Wait until the cluster is ready, and return its leader. Prints the missing replicas from time to time: one may
    take minutes to replay a long log. Raises ClusterError if a replica ends."""
    timeout_s = FIRST_REPORT_S
    while True:
        try:
            return await local.wait_ready(timeout_s=timeout_s)
        except NotReadyError as waiting:
            console.print(f"[dim]{_time_of_day()}[/dim] {waiting}. Still waiting; Ctrl-C stops the cluster.")
            timeout_s = NEXT_REPORT_S


async def _poll(client: Client, place: LocalReplica, seen: dict[str, Observation]) -> None:
    while True:
        seen[place.name] = Observation(place.name, await status_of(client, place), time.monotonic())
        await asyncio.sleep(POLL_S)


def _greet(local: ProcessCluster, leader: str, console: Console) -> None:
    for name, place in local.replicas.items():
        mark = "  [green]leads[/green]" if name == leader else ""
        console.print(f"[bold]{name}[/bold]  {place.url}  peers {place.peers}  process {local.process_id(name)}{mark}")
    first, last = local.endpoints[0], local.endpoints[-1]
    console.print(f"\ntry    curl -X PUT --data-binary 'hello' {first}/kv/greeting")
    console.print(f"       curl {last}/kv/greeting")
    console.print("Kill any replica to see it fail over; Ctrl-C stops the cluster.\n")


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")


def start_command(place: LocalReplica) -> str:
    """Return the command that starts this replica by hand, as short as it can be from the working directory."""
    script = Path(sys.executable).with_name("kvstore")
    program = [_shown(script)] if script.exists() else [sys.executable, "-m", "kvstore"]
    return shlex.join([*program, "serve", "--config", _shown(place.config)])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
