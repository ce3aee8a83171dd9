"""What shall go wrong, in which order and for how long: drawn from a seed, the same from the same one."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from random import Random

import msgspec


class Fault(StrEnum):
    """What can be done to a cluster."""

    KILL = "kill"
    """SIGKILL, and a start after a while."""
    PAUSE = "pause"
    """SIGSTOP past the lease, then SIGCONT."""
    STORM = "storm"
    """SIGKILL and a start at once, again and again, many of them within a lease of the last."""
    PARTITION = "partition"
    """Replicas are cut off from the others, both ways; clients reach them all the same."""
    ONE_WAY = "one-way"
    """Links are cut in one direction."""
    SLOW_NETWORK = "slow-network"
    """Messages between replicas arrive late."""
    DISK_FULL = "disk-full"
    """Writes to a file fail with ENOSPC."""
    EIO = "eio"
    """Syncs, or writes to a file, fail with EIO."""
    SLOW_FSYNC = "slow-fsync"
    """Each sync takes longer."""


DISK = frozenset({Fault.DISK_FULL, Fault.EIO, Fault.SLOW_FSYNC})
"""These need strace."""


class Reach(StrEnum):
    """How many replicas a fault meets."""

    ONE = "one"
    MINORITY = "minority"
    """As many as the cluster tolerates."""
    ALL = "all"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One fault to come. Its victims are the first of `order`, with the leader of that moment in front when
    `leader_first`; what only some faults have a use for is drawn for all of them."""

    fault: Fault
    hasty: bool
    """It does not wait until the cluster has recovered from the last one."""
    calm_s: float
    """Time that is left before it."""
    lasting_s: float
    reach: Reach
    leader_first: bool
    order: tuple[str, ...]
    outward: bool
    """One-way: what the victims send is lost, or what they are sent."""
    on_write: bool
    """EIO: on writes, or on syncs."""
    delay_ms: int
    """Of each message or sync."""
    beat_s: float
    """Storm: from one kill to the next."""

    def victims(self, leader: str | None) -> tuple[str, ...]:
        """Whom it meets while `leader` leads."""
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
"""Longer than a lease of default length."""
DELAY_MS = 5, 300
BEAT_S = 0.05, 2.0
"""A replica needs up to a second to start: of some storms it sees nothing but starts, in others it votes again."""
_REACHES = (Reach.ONE, Reach.ONE, Reach.ONE, Reach.MINORITY, Reach.MINORITY, Reach.ALL)


def schedule(seed: int, faults: Sequence[Fault], names: Sequence[str]) -> Iterator[Plan]:
    """Plans without end: each of `faults` comes once before any comes again."""
    rng = Random(seed)
    while True:
        for fault in rng.sample(faults, len(faults)):
            yield Plan(
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
