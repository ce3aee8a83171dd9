"""One flipped bit in the database or the write-ahead log of one replica, again and again: is it found, or harmless?

The same replica each time: two damaged ones of three are more than is tolerated.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from random import Random

import msgspec

from bench.errors import BenchError
from bench.lifecycle.replicas import DATABASE, LOG, wipe
from kvstore.testing.cluster_directory import ClusterError
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import describe_exit
from tests.torture.lifecycle import files
from tests.torture.lifecycle.ledger import Ledger

NODES = 3
SETTINGS: dict[str, int | str] = {"log_slots": 300, "history_revisions": 300}
"""So that a file has a log that is cut, a history that is compacted and a state, and stays small."""
KEYS = 200
MEANWHILE = 20
"""Keys put while the replica is dead, and again as many once it is back."""
READY_S = 60.0
CAUGHT_UP_S = 20.0


class Outcome(StrEnum):
    """What a flipped bit led to."""

    HARMLESS = "harmless"
    """The replica started with what it had, and serves what it should."""
    FOUND = "found"
    """It set its data aside, and was given the state by its peers."""
    REFUSED = "refused"
    """It did not start, and said why; somebody has to give it a new disk."""
    WRONG = "wrong"
    """It served what was never put, or lost what was acknowledged; or it did not come back."""


class Flip(msgspec.Struct, frozen=True):
    """One of them. `bit` is counted from the beginning of a file of `size_bytes`."""

    file: str
    size_bytes: int
    bit: int
    outcome: Outcome
    detail: str = ""


class Damages(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    seed: int
    flips: list[Flip]
    acknowledged: int
    reads: int
    """Answers that were compared with what was put."""

    def count(self, file: str, outcome: Outcome) -> int:
        """How many flips in that file ended so."""
        return sum(flip.file == file and flip.outcome is outcome for flip in self.flips)

    @property
    def within_limits(self) -> bool:
        """True when every flip was found by the replica itself, or harmless."""
        return all(flip.outcome in {Outcome.HARMLESS, Outcome.FOUND} for flip in self.flips)


async def measure(directory: Path, *, flips: int, seed: int, on_flip: Callable[[Flip], None]) -> Damages:
    """So many rounds with a new cluster in `directory`. Raises BenchError or ClusterError."""
    rng = Random(seed)
    cluster = ProcessCluster(NODES, directory, settings=SETTINGS)
    cluster.prepare()
    ledger = Ledger(KEYS, rng)
    found: list[Flip] = []
    times = 0
    try:
        cluster.start()
        await cluster.wait_ready()
        victim = rng.choice(list(cluster.replicas))
        await ledger.put_all(cluster.endpoints)
        for _ in range(flips):
            await ledger.put_some(cluster.endpoints, MEANWHILE)
            if files.set_aside(cluster.replicas[victim].data) > times and found[-1].outcome is Outcome.HARMLESS:
                found[-1] = msgspec.structs.replace(found[-1], outcome=Outcome.FOUND, detail="while it served")
            await _expect_back(cluster, victim)
            flip = await _round(cluster, victim, ledger, rng)
            times = files.set_aside(cluster.replicas[victim].data)
            found.append(flip)
            on_flip(flip)
    finally:
        await cluster.stop()
    return Damages(seed=seed, flips=found, acknowledged=ledger.acknowledged, reads=ledger.reads)


async def _round(cluster: ProcessCluster, victim: str, ledger: Ledger, rng: Random) -> Flip:
    place = cluster.replicas[victim]
    others = [other.url for other in cluster.replicas.values() if other is not place]
    before = files.set_aside(place.data)
    cluster.kill(victim)
    file = place.data / rng.choice([DATABASE, LOG])
    size_bytes = file.stat().st_size
    bit = rng.randrange(8 * size_bytes)
    files.flip(file, bit)
    said = place.log.stat().st_size
    await ledger.put_some(others, MEANWHILE)
    cluster.start([victim])
    outcome, detail = Outcome.HARMLESS, ""
    if not await _is_back(cluster, victim):
        outcome, detail = Outcome.REFUSED, _last_line(place.log, said)
        await wipe(cluster, victim)
        cluster.start([victim])
        if not await _is_back(cluster, victim):
            return Flip(
                file.name, size_bytes, bit, Outcome.WRONG, f"it did not come back, with a new disk neither: {detail}"
            )
    await ledger.put_some(cluster.endpoints, MEANWHILE)
    wrong = await ledger.read_back(place.url, CAUGHT_UP_S)
    if files.set_aside(place.data) > before:
        outcome, detail = Outcome.FOUND, _what_was_found(place.log, said)
        await ledger.put_all(cluster.endpoints)  # what it was given moves from the log into the database
    if wrong:
        outcome, detail = Outcome.WRONG, "; ".join(wrong[:5])
    return Flip(file.name, size_bytes, bit, outcome, detail)


async def _expect_back(cluster: ProcessCluster, name: str) -> None:
    if not await _is_back(cluster, name):
        ending = describe_exit(cluster.exit_of(name))
        raise BenchError(f"{name} did not stay a member, its process: {ending}; see {cluster.replicas[name].log}")


async def _is_back(cluster: ProcessCluster, name: str) -> bool:
    """Whether it is a member that votes and has caught up, in time; not when it ended."""
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


def _what_was_found(log: Path, start: int) -> str:
    """What the replica said of the damage since then."""
    lines = [line for line in _lines(log, start) if "begins anew" in line]
    return lines[-1] if lines else ""


def _last_line(log: Path, start: int) -> str:
    lines = _lines(log, start)
    return lines[-1] if lines else "it said nothing"


def _lines(log: Path, start: int) -> list[str]:
    said = log.read_bytes()[start:].decode(errors="replace")
    return [line for line in said.splitlines() if line.strip()]
