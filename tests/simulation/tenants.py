"""Clients of a simulated cluster that hold a lease: keys go with it, a lock, and writes that its fence guards.

A lease lives at least for its length from the moment that it was asked to be kept alive, if that was answered, whatever
becomes of leaders; and of two who were told that they hold the lock the later one has the greater fence.
"""

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    Compare,
    Get,
    GrantLease,
    KeepLeaseAlive,
    KeyCommand,
    LeasedPut,
    LeaseGranted,
    LeaseNotFound,
    Put,
    Relation,
    ReleaseLock,
    Result,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.errors import Refused
from kvstore.replica.node import Node
from paxos.types import MS, Time
from tests.simulation.cluster import SimulatedCluster

LOCK = b"lock"
GUARDED = b"guarded"
TTLS_MS = (50, 300, 1500)
PROVISIONAL_MS = 300
"""Longest time to live of a lease that was just granted; a renewal gives a longer one its whole length."""


class Tenancy:
    """What all tenants were told."""

    def __init__(self) -> None:
        self.alive: dict[int, tuple[Time, int]] = {}
        """When each lease was last asked for or kept alive, of what was answered, and its length in ms."""
        self.fence = 0
        """The highest one that was told to hold the lock."""
        self.guarded = 0
        """The highest fence that a guarded write was done with."""
        self.holders: dict[str, tuple[int, int]] = {}
        """The lease and the fence of each tenant that was told that it holds the lock, and has not given it up."""

    def holds(self, tenant: str, lease: int, fence: int, now: Time) -> None:
        """A tenant is told that it holds the lock. Of it and of another one that does, the lease of whoever has the
        lower fence is over: perhaps that is the one that is only told now."""
        for other, (held, theirs) in self.holders.items():
            asked, ttl_ms = self.alive[held if theirs < fence else lease]
            over = other == tenant or now >= asked + ttl_ms * MS
            assert over, f"{tenant} holds the lock with fence {fence} while {other} does"
        self.holders[tenant] = lease, fence
        self.fence = max(self.fence, fence)

    def check(self, expired_at: dict[int, Time]) -> None:
        """No lease ended before its time. `expired_at`: when those ended that the leader has ended."""
        for lease, (asked, ttl_ms) in self.alive.items():
            if lease in expired_at:
                lived_ms = (expired_at[lease] - asked) / MS
                assert lived_ms >= ttl_ms, f"lease {lease} of {ttl_ms} ms ended after {lived_ms} ms"


class Tenant:
    """One closed loop with random replicas. It rests at times, for longer than its lease lives."""

    def __init__(self, cluster: SimulatedCluster, name: str, tenancy: Tenancy) -> None:
        self._cluster = cluster
        self._rng = cluster.scenario.rng(f"tenant/{name}")
        self._tenancy = tenancy
        self.name = name
        self._lease = 0
        self._fence = 0
        self._ttl_ms = self._rng.choice(TTLS_MS)
        self._turn = 0
        self.stopped = False
        self._rest()

    def _rest(self) -> None:
        longest = 3 * self._ttl_ms if self._rng.random() < 0.1 else self._ttl_ms / 2
        self._cluster.world.between_ms(self._rng, (0.1, longest), self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        self._turn += 1
        turn, command = self._turn, self._command()
        if isinstance(command, ReleaseLock):
            self._tenancy.holders.pop(self.name, None)
        asked, floor = self._cluster.world.now, self._tenancy.fence
        guarded = self._tenancy.guarded

        def answered(answer: Result | Refused) -> None:
            self._heard(command, answer, asked, floor, guarded, late=self._turn != turn)
            over()

        def over() -> None:
            if self._turn == turn:
                self._turn += 1
                self._rest()

        def ask(node: Node) -> None:
            self._cluster.write(machine, node, command, answered)

        self._cluster.world.after_ms(self._cluster.scenario.patience_ms, over)
        machine = self._rng.choice(list(self._cluster.machines.values()))
        machine.happens(ask)

    def _command(self) -> KeyCommand:
        lease = self._lease
        if not lease:
            return GrantLease(min(self._ttl_ms, PROVISIONAL_MS))
        key = b"l%d" % self._rng.randrange(3)
        commands: list[KeyCommand] = [
            KeepLeaseAlive(lease),
            KeepLeaseAlive(lease, self._ttl_ms),
            LeasedPut(key, self.name.encode(), lease),
            AcquireLock(LOCK, lease, 0, self.name.encode(), self._rng.random() < 0.7),
            ReleaseLock(LOCK, lease),
        ]
        if self._fence:
            guard = Compare(LOCK, Target.FENCING_TOKEN, Relation.EQUAL, self._fence)
            commands.append(Transact([guard], [Put(GUARDED, b"%d" % self._fence)], [Get(GUARDED)]))
        return self._rng.choice(commands)

    def _heard(
        self, command: KeyCommand, answer: Result | Refused, asked: Time, floor: int, guarded: int, *, late: bool
    ) -> None:
        """`late`: it has gone on without this answer, and may have given the lock up."""
        match answer:
            case LeaseGranted(lease=lease, ttl_ms=ttl_ms):
                if isinstance(command, GrantLease):
                    self._lease, self._fence = lease, 0
                known, known_ms = self._tenancy.alive.get(lease, (0, 0))
                self._tenancy.alive[lease] = (max(known, asked), max(known_ms, ttl_ms))
            case LeaseNotFound(lease=lease) if lease == self._lease:
                self._lease = self._fence = 0
                self._tenancy.holders.pop(self.name, None)
            case AcquireResult(fencing_token=fence, held=True):
                assert fence >= floor, f"fence {fence} holds the lock after {floor} did"
                if not late:
                    self._fence = fence
                    self._tenancy.holds(self.name, self._lease, fence, self._cluster.world.now)
            case TransactResult(succeeded=True) if isinstance(command, Transact):
                done = command.compares[0].operand
                assert isinstance(done, int)
                assert done >= guarded, f"fence {done} was let through after {guarded} was"
                self._tenancy.guarded = max(self._tenancy.guarded, done)
            case _:
                pass
