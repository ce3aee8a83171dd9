"""`kvstore cluster`: replicas as processes on this machine, and a line for whatever happens to them."""

import asyncio
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kvstore.cli.watch import Sighting, Watch
from kvstore.client import Client
from kvstore.server.config import voters_warnings
from kvstore.testing.cluster_directory import ClusterError, LocalReplica
from kvstore.testing.process_cluster import NotReadyError, ProcessCluster
from kvstore.testing.replica_status import status_of

LOOK_S = 0.1
FIRST_WORD_S = 10.0
"""A cluster that is not ready after this time is told of, and again each `NEXT_WORD_S`."""
NEXT_WORD_S = 30.0
FAILED = 1
USAGE = 2


def cluster(
    nodes: Annotated[int, typer.Option(min=1, max=15, help="How many replicas. Fixed once there is data.")] = 3,
    port: Annotated[int, typer.Option(min=1, max=65500, help="Port of the first replica for clients.")] = 8001,
    peer_port: Annotated[int, typer.Option(min=1, max=65500, help="Port of the first replica for its peers.")] = 9001,
    data: Annotated[
        Path, typer.Option(help="Directory for data, logs and settings. The next run has the data.")
    ] = Path("data"),
) -> None:
    """Run a cluster on this machine until Ctrl-C, and tell what happens to it. A replica that dies stays dead."""
    console = Console(highlight=False, soft_wrap=True)
    for warning in voters_warnings(nodes):
        console.print(f"[yellow]warning:[/yellow] {warning}")
    local = ProcessCluster(nodes, data, port=port, peer_port=peer_port)
    code = USAGE
    try:
        with local.locked():
            local.prepare()
            code = FAILED
            asyncio.run(_run(local, console))
    except (ClusterError, OSError) as error:
        _end(error, code)


def _end(error: Exception, code: int) -> None:
    sys.stderr.write(f"kvstore: {error}\n")
    raise typer.Exit(code) from error


async def _run(local: ProcessCluster, console: Console) -> None:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    local.start()
    telling = asyncio.create_task(_tell(local, console))
    stopping = asyncio.create_task(asked_to_stop.wait())
    try:
        await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if telling.done():
            await telling  # raises what went wrong
    finally:
        telling.cancel()
        stopping.cancel()
        console.print("stopping")
        for name in await local.stop():
            console.print(f"[red]{name} did not stop in time and was killed[/red]; see {local.replicas[name].log}")
        console.print(f"stopped; the data stays in {local.directory}")


async def _tell(local: ProcessCluster, console: Console) -> None:
    leader = await until_ready(local, console)
    _greet(local, leader, console)
    watch = Watch(list(local.replicas), lambda name: start_command(local.replicas[name]))
    seen: dict[str, Sighting] = {}
    async with local.status_client() as client, asyncio.TaskGroup() as looking:
        for place in local.replicas.values():
            looking.create_task(_look(client, place, seen))
        while True:
            exits = {name: local.exit_of(name) for name in seen}
            for line in watch.observe(time.monotonic(), seen, exits):
                console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {line}")
            await asyncio.sleep(LOOK_S)


async def until_ready(local: ProcessCluster, console: Console) -> str:
    """Wait as long as all processes live, for one may take minutes to replay a long log, and say what is missing.

    Gives the leader's name; raises ClusterError when a replica ends.
    """
    patience_s = FIRST_WORD_S
    while True:
        try:
            return await local.wait_ready(timeout_s=patience_s)
        except NotReadyError as waiting:
            console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {waiting}. Still waiting; Ctrl-C stops all.")
            patience_s = NEXT_WORD_S


async def _look(client: Client, place: LocalReplica, seen: dict[str, Sighting]) -> None:
    while True:
        seen[place.name] = Sighting(await status_of(client, place), time.monotonic())
        await asyncio.sleep(LOOK_S)


def _greet(local: ProcessCluster, leader: str, console: Console) -> None:
    for name, place in local.replicas.items():
        mark = "  [green]leads[/green]" if name == leader else ""
        console.print(f"[bold]{name}[/bold]  {place.url}  peers {place.peers}  process {local.process_id(name)}{mark}")
    first, last = local.endpoints[0], local.endpoints[-1]
    console.print(f"\ntry    curl -X PUT --data-binary 'hello' {first}/kv/greeting")
    console.print(f"       curl {last}/kv/greeting")
    console.print("Kill what you like; Ctrl-C stops all.\n")


def start_command(place: LocalReplica) -> str:
    """What a person types to start this replica by hand, as short as it can be from here."""
    script = Path(sys.executable).with_name("kvstore")
    program = [_shown(script)] if script.exists() else [sys.executable, "-m", "kvstore"]
    return shlex.join([*program, "serve", "--config", _shown(place.config)])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
