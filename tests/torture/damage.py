"""Single flipped bits in any file of the data of one replica: each must be detected or harmless.

The damaged replica is always the same one, because a cluster of three tolerates one damaged replica.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from bench.cluster import replace_disk
from bench.command import Json, figure_table, progress_bar, run, scratch_directory, verdict
from bench.errors import BenchError
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import describe_exit
from tests.torture import files
from tests.torture.command import Seed, conclude, drawn, first_lines
from tests.torture.write_journal import WriteJournal

NODES = 3
SETTINGS: dict[str, int | str] = {"log_slots": 300, "history_revisions": 300}
"""Settings with which a small database contains a truncated log, a compacted history and applied state."""
KEYS = 200
MEANWHILE = 20
"""Number of keys that are put while the replica is down, and again when it is back."""
READY_S = 60.0
CATCH_UP_S = 20.0

DAMAGE = typer.Typer()


class FlipOutcome(StrEnum):
    """Consequence of a flipped bit."""

    HARMLESS = "harmless"
    """The replica started with its data and answers correctly."""
    DETECTED = "detected"
    """The replica set its data aside and received a snapshot."""
    REFUSED = "refused"
    """The replica did not start and logged the reason; an operator has to replace its disk."""
    WRONG = "wrong"
    """The replica answered with a wrong value, lost an acknowledged write, or did not recover."""


class Flip(msgspec.Struct, frozen=True):
    """One flipped bit, counted from the beginning of the file."""

    file: str
    size_bytes: int
    bit: int
    outcome: FlipOutcome
    detail: str = ""


class DamageResult(msgspec.Struct, frozen=True, kw_only=True):
    """All flips of a run."""

    seed: int
    flips: list[Flip]
    acknowledged: int
    reads: int
    """Number of answers that were checked."""

    def count(self, file: str, outcome: FlipOutcome) -> int:
        """Return the number of flips in a file with this outcome."""
        return sum(flip.file == file and flip.outcome is outcome for flip in self.flips)

    @property
    def bad(self) -> list[Flip]:
        """Flips that were neither harmless nor detected."""
        return [flip for flip in self.flips if flip.outcome in {FlipOutcome.REFUSED, FlipOutcome.WRONG}]


@DAMAGE.command()
def damage(
    flips: Annotated[int, typer.Option(min=1, help="Number of flipped bits, one at a time.")] = 500,
    seed: Seed = None,
    json: Json = None,
) -> None:
    """Flip bits in the files of one replica: each must be detected or harmless."""
    with scratch_directory() as directory, progress_bar() as bar:
        task = bar.add_task("flips", total=flips)

        def show(flip: Flip) -> None:
            bar.update(task, advance=1, description=f"flips, last {flip.outcome}")

        result = run(measure(directory, flips=flips, seed=drawn(seed), on_flip=show))
        bar.stop()
        conclude(json, result, damage_report(result), correct=not result.bad)


async def measure(directory: Path, *, flips: int, seed: int, on_flip: Callable[[Flip], None]) -> DamageResult:
    """Damage a replica of a new cluster again and again. Raises BenchError or ClusterError."""
    rng = Random(seed)
    cluster = ProcessCluster(NODES, directory, settings=SETTINGS)
    cluster.prepare()
    journal = WriteJournal(KEYS, rng)
    done: list[Flip] = []
    times_set_aside = 0
    try:
        cluster.start()
        await cluster.wait_ready()
        victim = rng.choice(list(cluster.replicas))
        await journal.put_all(cluster.endpoints)
        for _ in range(flips):
            await journal.put_some(cluster.endpoints, MEANWHILE)
            if (
                files.set_aside(cluster.replicas[victim].data) > times_set_aside
                and done[-1].outcome is FlipOutcome.HARMLESS
            ):
                done[-1] = msgspec.structs.replace(
                    done[-1], outcome=FlipOutcome.DETECTED, detail="while the replica was serving"
                )
            await _expect_back(cluster, victim)
            flip = await _flip(cluster, victim, journal, rng)
            times_set_aside = files.set_aside(cluster.replicas[victim].data)
            done.append(flip)
            on_flip(flip)
    finally:
        await cluster.stop()
    return DamageResult(seed=seed, flips=done, acknowledged=journal.acknowledged, reads=journal.reads)


async def _flip(cluster: ProcessCluster, victim: str, journal: WriteJournal, rng: Random) -> Flip:
    replica = cluster.replicas[victim]
    others = [other.url for other in cluster.replicas.values() if other is not replica]
    before = files.set_aside(replica.data)
    cluster.kill(victim)
    file = rng.choice(files.damageable(replica.data))
    size_bytes = file.stat().st_size
    bit = rng.randrange(8 * size_bytes)
    files.flip(file, bit)
    log_end = replica.log.stat().st_size
    await journal.put_some(others, MEANWHILE)
    cluster.start([victim])
    outcome, detail = FlipOutcome.HARMLESS, ""
    if not await _is_back(cluster, victim):
        outcome, detail = FlipOutcome.REFUSED, _last_line(replica.log, log_end)
        await replace_disk(cluster, victim)
        cluster.start([victim])
        if not await _is_back(cluster, victim):
            detail = f"the replica did not recover with an empty disk either: {detail}"
            return Flip(file.name, size_bytes, bit, FlipOutcome.WRONG, detail)
    await journal.put_some(cluster.endpoints, MEANWHILE)
    wrong = await journal.violations(replica.url, CATCH_UP_S)
    if files.set_aside(replica.data) > before:
        outcome, detail = FlipOutcome.DETECTED, _last_line(replica.log, log_end, containing="damaged")
        await journal.put_all(cluster.endpoints)  # moves the received snapshot from the WAL into the database
    if wrong:
        outcome, detail = FlipOutcome.WRONG, "; ".join(wrong[:5])
    return Flip(file.name, size_bytes, bit, outcome, detail)


async def _expect_back(cluster: ProcessCluster, name: str) -> None:
    if not await _is_back(cluster, name):
        ending = describe_exit(cluster.exit_of(name))
        raise BenchError(f"{name} is not a ready member any more (process: {ending}): see {cluster.replicas[name].log}")


async def _is_back(cluster: ProcessCluster, name: str) -> bool:
    """Wait until a replica votes and has caught up; return False when it ended, or after READY_S."""
    try:
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    await cluster.wait_ready(timeout_s=POLL_S)
                    await cluster.wait_joined(*cluster.replicas, timeout_s=POLL_S)
                except ClusterError:
                    if not cluster.runs(name):
                        return False
                    await asyncio.sleep(POLL_S)
                else:
                    return True
    except TimeoutError:
        return False


def _last_line(log: Path, start: int, containing: str = "") -> str:
    """Return the last line that a replica logged since `start`."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and containing in line]
    return lines[-1] if lines else "the log has no such line"


def damage_report(result: DamageResult) -> RenderableType:
    """Return the outcomes by file, and the bad flips."""
    table = figure_table("flipped in", *FlipOutcome)
    for file in sorted({flip.file for flip in result.flips}):
        table.add_row(file, *(str(result.count(file, outcome)) for outcome in FlipOutcome))
    reasons = [
        f"{each.outcome}: bit {each.bit} of {each.file} ({each.size_bytes:,} B): {each.detail}" for each in result.bad
    ]
    return Group(
        table,
        f"{result.acknowledged:,} writes acknowledged, {result.reads:,} answers of the damaged replica checked",
        *first_lines(reasons),
        verdict("every flip detected or harmless", met=not result.bad),
        f"to repeat: python -m tests.torture damage --flips {len(result.flips)} --seed {result.seed}",
    )
