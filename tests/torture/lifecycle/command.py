"""`python -m tests.torture damage | crashes | churn`."""

import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType

from bench.command import Json, Seed, progress_bar, run, write_json
from bench.errors import BenchError
from bench.report import print_report
from bench.scratch import scratch_directory
from tests.torture.lifecycle import churn as churning
from tests.torture.lifecycle import crashes as crashing
from tests.torture.lifecycle import damage as damaging
from tests.torture.lifecycle import report

LIFECYCLE = typer.Typer()
CLIENTS = typer.Option(min=1, max=64, help="How many clients work.")


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


def _end_keeping(json: Path | None, found: msgspec.Struct, shown: RenderableType, *, within_limits: bool) -> None:
    """Here whatever is not within the limits must never happen, and somebody has to look into the data."""
    write_json(json, found)
    print_report(shown)
    if not within_limits:
        raise BenchError("this must never happen, see above: please report it")
