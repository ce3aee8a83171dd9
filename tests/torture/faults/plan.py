"""The schedule of faults, drawn from a seed: equal seeds draw equal schedules."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from random import Random

import msgspec


class Fault(StrEnum):
    """A kind of fault."""

    KILL = "kill"
    """SIGKILL, and a later start."""
    PAUSE = "pause"
    """SIGSTOP for longer than a leader lease, then SIGCONT."""
    STORM = "storm"
    """SIGKILL and an immediate start, repeatedly, often before the leader lease of the killed process has expired."""
    PARTITION = "partition"
    """Replicas lose the links to the others in both directions; clients still reach them."""
    ONE_WAY = "one-way"
    """The victims lose one direction of their links; if all replicas are victims, only a ring of links remains."""
    SLOW_NETWORK = "slow-network"
    """Messages between replicas are delayed."""
    DISK_FULL = "disk-full"
    """Writes to a file fail with ENOSPC."""
    EIO = "eio"
    """Syncs, or writes to a file, fail with EIO."""
    SLOW_FSYNC = "slow-fsync"
    """Each sync is delayed."""


DISK = frozenset({Fault.DISK_FULL, Fault.EIO, Fault.SLOW_FSYNC})
"""Faults that need strace."""


class Reach(StrEnum):
    """Number of victims."""

    ONE = "one"
    MINORITY = "minority"
    """As many replicas as the cluster tolerates."""
    ALL = "all"


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One planned fault. All fields are drawn for every fault, even those that the fault does not use."""

    fault: Fault
    hasty: bool
    """Whether the fault may begin before the cluster has recovered from the previous one."""
    calm_s: float
    """Pause before the fault."""
    lasting_s: float
    reach: Reach
    leader_first: bool
    """Whether the leader is the first victim."""
    order: tuple[str, ...]
    """Replicas in the order in which they become victims."""
    outward: bool
    """One-way: whether messages from the victims are held back, rather than messages to them."""
    on_write: bool
    """EIO: whether writes fail, rather than syncs."""
    delay_ms: int
    """Delay of each message or sync."""
    beat_s: float
    """Storm: time from one kill to the next."""

    def victims(self, leader: str | None) -> tuple[str, ...]:
        """Return the victims while `leader` leads."""
        front = [leader] if self.leader_first and leader is not None else []
        order = [*front, *(name for name in self.order if name not in front)]
        count = {Reach.ONE: 1, Reach.MINORITY: (len(order) - 1) // 2, Reach.ALL: len(order)}[self.reach]
        return tuple(order[:count])


CALM_S = 0.2, 1.5
LASTING_S = {
    Fault.KILL: (0.05, 1.5),
    Fault.STORM: (2.0, 6.0),
}
LASTING_ELSE_S = 0.7, 3.0
"""Range of the length of the other faults, longer than the default leader lease."""
DELAY_MS = 5, 300
BEAT_S = 0.05, 2.0
"""A replica needs up to a second to start: in some storms it never finishes, in others it also votes."""
_REACHES = (Reach.ONE, Reach.ONE, Reach.ONE, Reach.MINORITY, Reach.MINORITY, Reach.ALL)


def schedule(seed: int, faults: Sequence[Fault], names: Sequence[str]) -> Iterator[FaultPlan]:
    """Yield plans for ever; each of `faults` comes once before any comes again."""
    rng = Random(seed)
    while True:
        for fault in rng.sample(faults, len(faults)):
            yield FaultPlan(
                fault=fault,
                hasty=rng.random() < 0.3,
                calm_s=rng.uniform(*CALM_S),
                lasting_s=rng.uniform(*LASTING_S.get(fault, LASTING_ELSE_S)),
                reach=rng.choice(_REACHES),
                leader_first=rng.random() < 0.6,
                order=tuple(rng.sample(names, len(names))),
                outward=rng.random() < 0.5,
                on_write=rng.random() < 0.5,
                delay_ms=rng.randint(*DELAY_MS),
                beat_s=rng.uniform(*BEAT_S),
            )
