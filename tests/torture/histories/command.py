"""`python -m tests.torture histories`."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from bench.command import Json, run, say, scratch_directory, verdict
from tests.torture.command import Seed, conclude, drawn, first_lines
from tests.torture.histories.run import HistoriesResult, measure

HISTORIES = typer.Typer()


@HISTORIES.command()
def histories(
    *,
    seconds: Annotated[float, typer.Option(min=5, max=86_400, help="Time during which faults are injected.")] = 60,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Compare watches, reads of the past, leases and locks with each other while replicas fail and fetch snapshots."""
    with scratch_directory() as directory:
        result = run(measure(directory / "cluster", seconds=seconds, seed=drawn(seed), say=say))
        conclude(json, result, histories_report(result), correct=not (result.violations or result.void))


def histories_report(result: HistoriesResult) -> RenderableType:
    """Return what was compared, and the violations."""
    changes, leases = result.changes, result.leases
    return Group(
        f"{result.seconds:.0f} s, {result.faults} faults, {result.kills} kills, {result.snapshots} snapshots "
        f"needed, {result.interrupted} kills meanwhile; {result.acknowledged:,} writes acknowledged",
        f"{changes.watches} watches, {result.resumed:,} times resumed, {result.torn} times within a revision: "
        f"{changes.events:,} events of {changes.changes:,} changes",
        f"{changes.reads:,} reads and {changes.lists:,} lists ({changes.listed:,} records) as of earlier revisions, "
        f"{result.compacted:,} compacted",
        f"{leases.leases:,} leases, {leases.renewals:,} renewals, {leases.endings:,} times seen ended; "
        f"{leases.holds:,} times a lock was held, {leases.fenced:,} writes under fencing tokens",
        *first_lines([*result.violations, *result.void]),
        verdict(
            "every change once and in order, in events as in reads; no lease early, no lock twice",
            met=not result.violations,
        ),
        f"to repeat: python -m tests.torture histories --seconds {result.asked_s:g} --seed {result.seed}",
    )
