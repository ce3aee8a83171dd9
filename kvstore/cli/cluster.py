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
from kvstore.cli.parameters import whole_number
from kvstore.client import Client
from kvstore.server.config import voters_warnings
from kvstore.server.output import install
from kvstore.testing.cluster_directory import ClusterError, LocalReplica
from kvstore.testing.process_cluster import NotReadyError, ProcessCluster
from kvstore.testing.replica_status import status_of

POLL_S = 0.1
UNREACHABLE_S = 1.5
"""Time after which an unreachable replica, or a missing leader, is reported."""
FIRST_REPORT_S = 10.0
"""Time after which a cluster that is not ready is reported; it is reported again every `NEXT_REPORT_S`."""
NEXT_REPORT_S = 30.0


def cluster(
    nodes: Annotated[
        int, typer.Option(parser=whole_number(1, 15), metavar="N", help="Number of replicas, fixed once there is data.")
    ] = 3,
    port: Annotated[
        int,
        typer.Option(parser=whole_number(1, 65500), metavar="PORT", help="Client port of n1; n2 uses the next port."),
    ] = 8001,
    peer_port: Annotated[
        int, typer.Option(parser=whole_number(1, 65500), metavar="PORT", help="Peer port of n1; n2 uses the next port.")
    ] = 9001,
    data: Annotated[
        Path, typer.Option(help="Directory for data, logs and settings. The next run continues with this data.")
    ] = Path("data"),
) -> None:
    """Run a cluster on this machine until Ctrl-C.

    Prints a line for each change, such as a crashed replica, a lost majority or a new leader. A replica that ends is
    not restarted.
    """
    console = Console(highlight=False, soft_wrap=True)
    for warning in voters_warnings(nodes):
        console.print(f"[yellow]warning:[/yellow] {warning}")
    status = ExitStatus.USAGE
    try:
        local = ProcessCluster(nodes, data, port=port, peer_port=peer_port)
        with local.locked():
            local.prepare()
            status = ExitStatus.FAILED
            asyncio.run(_run(local, console))
    except (ClusterError, OSError) as error:
        fail(error, status)


async def _run(local: ProcessCluster, console: Console) -> None:
    stop_requested = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    local.start()
    install("stdout")  # a pipe that nobody reads must not keep Ctrl-C from stopping the replicas
    install("stderr")
    reporting = asyncio.create_task(_report(local, console))
    stopping = asyncio.create_task(stop_requested.wait())
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
        console.print(f"stopped; the data is in {local.directory}")


async def _report(local: ProcessCluster, console: Console) -> None:
    leader = await until_ready(local, console)
    _greet(local, leader, console)
    changes = ChangeDetector(
        local.replicas, grace_s=UNREACHABLE_S, start_command=lambda name: start_command(local.replicas[name])
    )
    seen: dict[str, Observation] = {}
    async with local.status_client() as client, asyncio.TaskGroup() as polling:
        for replica in local.replicas.values():
            seen[replica.name] = Observation(replica.name, None, time.monotonic())
            polling.create_task(_poll(client, replica, seen))
        while True:
            exits = {name: local.exit_of(name) for name in seen}
            for line in changes.observe(time.monotonic(), seen, exits):
                console.print(f"[dim]{_time_of_day()}[/dim] {line}")
            await asyncio.sleep(POLL_S)


async def until_ready(local: ProcessCluster, console: Console) -> str:
    """Wait until the cluster is ready, and return its leader. Raises ClusterError if a replica ends.

    Prints the missing replicas from time to time: a replica may take minutes to replay a long log.
    """
    timeout_s = FIRST_REPORT_S
    while True:
        try:
            return await local.wait_ready(timeout_s=timeout_s)
        except NotReadyError as waiting:
            console.print(f"[dim]{_time_of_day()}[/dim] {waiting}. Still waiting; Ctrl-C stops the cluster.")
            timeout_s = NEXT_REPORT_S


async def _poll(client: Client, replica: LocalReplica, seen: dict[str, Observation]) -> None:
    while True:
        seen[replica.name] = Observation(replica.name, await status_of(client, replica), time.monotonic())
        await asyncio.sleep(POLL_S)


def _greet(local: ProcessCluster, leader: str, console: Console) -> None:
    for name, replica in local.replicas.items():
        pid = local.process_id(name)
        mark = "  [green]leads[/green]" if name == leader else ""
        console.print(f"[bold]{name}[/bold]  {replica.url}  peers {replica.peers}  process {pid}{mark}")
    first, last = local.endpoints[0], local.endpoints[-1]
    console.print(f"\ntry    curl -X PUT --data-binary 'hello' {first}/kv/greeting")
    console.print(f"       curl {last}/kv/greeting")
    console.print("Kill any replica to see it fail over; Ctrl-C stops the cluster.\n")


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")


def start_command(replica: LocalReplica) -> str:
    """Return the command that starts `replica`, with paths relative to the working directory where possible."""
    script = Path(sys.executable).with_name("kvstore")
    program = [_shown(script)] if script.exists() else [sys.executable, "-m", "kvstore"]
    return shlex.join([*program, "serve", "--config", _shown(replica.config)])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
