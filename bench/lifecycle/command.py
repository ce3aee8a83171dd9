"""`python -m bench restart | soak | snapshot | damage | crashes | churn`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console, RenderableType

from bench.command import Json, run, write_json
from bench.errors import BenchError
from bench.lifecycle import report
from bench.lifecycle import restart as restarting
from bench.lifecycle import snapshot as snapshotting
from bench.lifecycle import soak as soaking
from bench.processes import check_platform
from bench.report import print_report
from bench.scratch import scratch_directory

LIFECYCLE = typer.Typer()
CLIENTS = typer.Option(min=1, max=64, help="How many clients work.")
VALUE_BYTES = typer.Option(min=1, max=1 << 20, help="Length of each value.")


@LIFECYCLE.command()
def restart(
    keys: Annotated[int, typer.Option(min=1, help="How many keys there are.")] = 1_000_000,
    value_bytes: Annotated[int, VALUE_BYTES] = 100,
    times: Annotated[int, typer.Option(min=1, help="How often one replica is killed and started.")] = 3,
    json: Json = None,
) -> None:
    """Kill replicas with much data: the time until they are ready, and the memory they have."""
    check_platform()
    with scratch_directory() as directory:
        measuring = restarting.measure(directory, keys=keys, value_bytes=value_bytes, times=times, say=_say)
        found = run(measuring)
    _end(json, found, report.restart_report(found), within_limits=found.within_limits)


@LIFECYCLE.command()
def soak(
    *,
    seconds: Annotated[int, typer.Option(min=3, max=86_400, help="How long.")] = 600,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 10.0,
    keys: Annotated[int, typer.Option(min=1, help="How many keys are overwritten in turn.")] = 10_000,
    value_bytes: Annotated[int, VALUE_BYTES] = 100,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Requests under way at once.")] = 64,
    json: Json = None,
) -> None:
    """Overwrite keys at full speed: is the size of the files bounded?"""
    check_platform()
    if seconds < 3 * every:
        raise BenchError(f"--seconds {seconds} is too short to compare thirds of it: take {3 * every:.0f} or more")
    with scratch_directory() as directory:
        found = run(
            soaking.measure(
                directory,
                seconds=seconds,
                every_s=every,
                keys=keys,
                value_bytes=value_bytes,
                connections=connections,
                on_sample=lambda sample: print_report(report.sample_line(sample)),
            )
        )
    _end(json, found, report.soak_report(found), within_limits=found.within_limits)


@LIFECYCLE.command()
def snapshot(
    mib: Annotated[int, typer.Option(min=1, help="Size of the state.")] = 1024,
    rate: Annotated[float, typer.Option(min=0, help="PUTs a second of all writers; 0: as many as it takes.")] = 200.0,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long before, and after.")] = 30,
    json: Json = None,
) -> None:
    """Give a replica with an empty disk a large state while clients write: what they notice."""
    check_platform()
    with scratch_directory() as directory:
        measuring = snapshotting.measure(directory, mib=mib, per_second=rate or None, seconds=seconds, say=_say)
        found = run(measuring)
    _end(json, found, report.snapshot_report(found), within_limits=found.within_limits)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="dim")


def _end(json: Path | None, found: msgspec.Struct, shown: RenderableType, *, within_limits: bool) -> None:
    write_json(json, found)
    print_report(shown)
    raise typer.Exit(not within_limits)
