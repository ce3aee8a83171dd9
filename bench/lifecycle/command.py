"""`python -m bench restart | soak | snapshot | damage | crashes | churn`."""

import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console, RenderableType

from bench.command import Json, Seed, progress_bar, run, write_json
from bench.errors import BenchError
from bench.lifecycle import churn as churning
from bench.lifecycle import crashes as crashing
from bench.lifecycle import damage as damaging
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


@LIFECYCLE.command()
def damage(
    flips: Annotated[int, typer.Option(min=1, help="How many bits are flipped, one at a time.")] = 500,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Flip bits in the database and write-ahead log of one replica: each is found or harmless, or it is a failure."""
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("flips", total=flips)
        found = run(
            damaging.measure(
                directory,
                flips=flips,
                seed=_drawn(seed),
                on_flip=lambda flip: bar.update(task, advance=1, description=f"flips, last {flip.outcome}"),
            )
        )
        bar.stop()
        _end_keeping(json, found, report.damage_report(found), within_limits=found.within_limits)


@LIFECYCLE.command()
def crashes(
    kills: Annotated[int, typer.Option(min=2, help="How many.")] = 300,
    clients: Annotated[int, CLIENTS] = 6,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Kill replicas that cut, compact, install states and migrate all the time; every answer is checked."""
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("kills", total=kills)
        found = run(
            crashing.measure(
                directory,
                kills=kills,
                clients=clients,
                seed=_drawn(seed),
                on_kill=lambda kill: bar.update(
                    task, advance=1, description=f"kills, last while {' and '.join(kill.under_way) or 'calm'}"
                ),
            )
        )
        bar.stop()
        _end_keeping(json, found, report.crashes_report(found), within_limits=found.within_limits)


@LIFECYCLE.command()
def churn(
    changes: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    clients: Annotated[int, CLIENTS] = 6,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Add, remove and replace members under clients, every second time with a kill; every answer is checked."""
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("changes", total=changes)
        found = run(
            churning.measure(
                directory,
                changes=changes,
                clients=clients,
                seed=_drawn(seed),
                on_change=lambda one: bar.update(task, advance=1, description=f"changes, last {one.what} {one.member}"),
            )
        )
        bar.stop()
        _end_keeping(json, found, report.churn_report(found), within_limits=found.within_limits)


def _drawn(seed: int | None) -> int:
    return secrets.randbelow(1 << 32) if seed is None else seed


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="dim")


def _end(json: Path | None, found: msgspec.Struct, shown: RenderableType, *, within_limits: bool) -> None:
    write_json(json, found)
    print_report(shown)
    raise typer.Exit(not within_limits)


def _end_keeping(json: Path | None, found: msgspec.Struct, shown: RenderableType, *, within_limits: bool) -> None:
    """Here whatever is not within the limits must never happen, and somebody has to look into the data."""
    write_json(json, found)
    print_report(shown)
    if not within_limits:
        raise BenchError("this must never happen, see above: please report it")
