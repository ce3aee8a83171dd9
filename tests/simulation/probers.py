"""Clients of a simulated cluster that ask for everything that there is to ask for. The log gives one right answer to
each request, so that they keep no history: see `tests.simulation.checkers.Safety`."""

from collections.abc import Callable
from functools import partial

from kvstore.api.commands import (
    AcquireLock,
    AcquireResult,
    Command,
    Delete,
    DeleteSpan,
    Get,
    GrantLease,
    Idempotent,
    KeepLeaseAlive,
    LeasedPut,
    LeaseGranted,
    LeaseNotFound,
    Put,
    ReleaseLock,
    RepeatableCommand,
    Result,
    RevokeLease,
    Transact,
)
from kvstore.api.errors import Refused
from kvstore.api.key_range import EVERY_KEY, Span, starting_with
from kvstore.api.queries import Consistency, LeaseLookup, LeaseScan, LockLookup, Lookup, Query, Scan
from kvstore.api.results import QueryAnswer
from kvstore.replica.node import Node
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.machine import SimulatedMachine

LOCKS = (b"lock", b"other")
KEYS = (b"k0", b"l0", b"p0", b"p0", b"p1", b"w0003")
OWN_KEYS = (b"p0", b"p1")
TTLS_MS = (200, 1000)
SESSION_MS = 600_000
OLDER = 7
"""Numbers below the newest one that a request is repeated with."""


class Prober:
    """One closed loop with random replicas."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self._cluster = cluster
        self._rng = cluster.scenario.rng(f"prober/{name}")
        self.name = name
        self._count = 0
        self._session = 0
        self._number = 0
        self._leases: list[int] = []
        self.stopped = False
        self._rest()

    def _rest(self) -> None:
        self._cluster.world.between_ms(self._rng, (0.1, 3 * self._cluster.scenario.think_ms), self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        self._count += 1
        count = self._count

        def over() -> None:
            if self._count == count:
                self._count += 1
                self._rest()

        machine = self._rng.choice(list(self._cluster.machines.values()))
        self._cluster.world.after_ms(self._cluster.scenario.patience_ms, over)
        if self._rng.random() < 0.5:
            machine.happens(partial(self._read, machine, self._rng.choice(list(Consistency)), over))
            return
        command = self._command()

        def answered(answer: Result | Refused) -> None:
            self._heard(command, answer)
            over()

        machine.happens(lambda node: self._cluster.write(machine, node, command, answered))

    def _read(self, machine: SimulatedMachine, consistency: Consistency, over: Callable[[], None], node: Node) -> None:
        query = self._query(node)

        def answered(answer: QueryAnswer | Refused) -> None:
            if not isinstance(answer, Refused):
                self._cluster.answered(machine, query, answer)
            over()

        node.read(query, consistency, answered)

    def _query(self, node: Node) -> Query:
        rng = self._rng
        revision = rng.randint(0, node.machine.shown_revision + 1)
        spans = (EVERY_KEY, starting_with(b"k"), starting_with(b"l"), Span(b"k1", b"l1"), starting_with(b"w000"))
        of_leases: tuple[Query, ...] = (
            LeaseLookup(rng.choice(self._leases or [1])),
            LeaseScan(rng.randint(0, revision), rng.choice((1, 100))),
            LockLookup(rng.choice(LOCKS)),
        )
        whole = rng.choice((None, revision))
        of_keys: tuple[Query, ...] = (
            rng.choice(KEYS),
            Lookup(rng.choice(KEYS), revision),
            Scan(rng.choice(spans), rng.choice((1, 2, 1000)), whole, reverse=rng.random() < 0.5),
        )
        return rng.choice((*of_leases, *of_keys))

    def _command(self) -> Command:
        rng, lease = self._rng, self._rng.choice(self._leases or [0])
        if self._cluster.scenario.bulk and rng.random() < 0.2:
            return self._bulk()
        if not self._session:
            return GrantLease(SESSION_MS)
        value = b"%b.%d" % (self.name.encode(), self._count)
        own: tuple[RepeatableCommand, ...] = (
            Put(rng.choice(OWN_KEYS), value),
            Delete(rng.choice(OWN_KEYS)),
            LeasedPut(rng.choice(OWN_KEYS), value, 0, rng.choice(TTLS_MS)),
            LeasedPut(rng.choice(OWN_KEYS), value, lease, rng.choice(TTLS_MS)),
            Transact([], [LeasedPut(b"p0", value, lease, rng.choice(TTLS_MS)), Put(b"p1", value), Delete(b"p1")], []),
            Transact([], [Put(b"p0", value), LeasedPut(b"p1", value, lease, rng.choice(TTLS_MS)), Get(b"p0")], []),
            AcquireLock(b"other", 0, rng.choice(TTLS_MS), value, queue=rng.random() < 0.7),
            AcquireLock(b"other", lease, rng.choice(TTLS_MS), value, queue=rng.random() < 0.7),
            ReleaseLock(b"other", lease),
            RevokeLease(lease),
            GrantLease(rng.choice(TTLS_MS)),
        )
        command = rng.choice(own)
        chance = rng.random()
        if chance < 0.1:
            return KeepLeaseAlive(lease)
        if chance < 0.6:
            return command
        self._number += rng.choice((1, 1, 3))  # a number that was left out may be used later
        number = self._number if chance < 0.8 else max(1, self._number - rng.randint(0, OLDER))
        return Idempotent(self._session, number, b"%d" % (number if rng.random() < 0.9 else -number), command)

    def _bulk(self) -> Command:
        """A revision of many changes."""
        if self._rng.random() < 0.3:
            return DeleteSpan(starting_with(b"w"))
        return Transact([], [Put(b"w%04d" % number, b"%d" % self._count) for number in range(self._size())], [])

    def _size(self) -> int:
        bulk = self._cluster.scenario.bulk
        return self._rng.choice((bulk, bulk // 2 + 1))

    def _heard(self, command: Command, answer: Result | Refused) -> None:
        match answer:
            case LeaseGranted(lease=lease, ttl_ms=ttl_ms) if ttl_ms == SESSION_MS:
                self._session = lease
            case LeaseGranted(lease=lease) | AcquireResult(lease=lease):
                self._leases = [*self._leases[-4:], lease]
            case LeaseNotFound(lease=lease) if lease in self._leases:
                self._leases.remove(lease)
            case _:
                pass
