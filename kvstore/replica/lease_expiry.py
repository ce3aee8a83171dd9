"""Proposes the expiry of client leases while this replica is the leader.

Only the leader measures the remaining time of a lease, in memory, from the moment when the leader applies the grant or
the last keep-alive. The holder counts from the moment of its request, which is earlier. The leader's clock may be the
faster one, so the leader waits longer than the TTL, by the clock drift bound. So a lease never expires before its
holder expects it, if the rates of their clocks differ by at most the bound.

A new leader first records its ballot with a `RecordLeader` command, and then gives every lease its full TTL again. From
then on an `ExpireLease` of an earlier leader has no effect, even if that leader was only paused. An `ExpireLease` of a
lease that was kept alive in the meantime has no effect either.
"""

from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush

from kvstore.api.commands import ExpireLease, RecordLeader, Result
from kvstore.api.errors import Refused
from kvstore.state_machine.lease_index import LEADER_KEY, LeaseIndex
from kvstore.state_machine.view import Records
from paxos.types import MS, Ballot, Time, lengthened

RETRY_MS = 100
"""Time until the expiry of a lease is proposed again if the lease still exists."""
MAX_ENDING = 500
"""Limit on the records of the leases whose expiry is proposed and not yet applied, so that client writes are applied in
between."""

SubmitCommand = Callable[[RecordLeader | ExpireLease, Callable[[Result | Refused], None]], None]


class LeaseExpiry:
    """The times at which client leases expire, known only while this replica leads."""

    def __init__(self, submit: SubmitCommand, *, clock_drift_ppm: int) -> None:
        """Begin without a lease. `submit` has a command ordered and applied."""
        self._submit = submit
        self._clock_drift_ppm = clock_drift_ppm
        self._leading: Ballot | None = None
        self._measures = False
        """True once this leader's ballot is recorded in the state."""
        self._ends: dict[int, Time] = {}
        """Time at which each lease expires."""
        self._queue: list[tuple[Time, int]] = []
        """Heap of the same times with their leases. Entries that differ from `_ends` are out of date."""
        self._proposed: dict[int, int] = {}
        """Number of records of each lease whose expiry is proposed. The key 0 stands for the record of the leader."""
        self._ending = 0
        """Sum of the numbers in `_proposed`."""

    def follow(self, leading: Ballot | None, records: Records, now: Time) -> None:
        """Follow the applied state. `leading` is the ballot under which this replica leads, None when it does not."""
        lease_index = records.lease_index
        if leading != self._leading:
            self._leading, self._measures = leading, False
            self._ends, self._queue = {}, []
        if leading is None or not lease_index.leases:
            self._ends, self._queue = {}, []  # `tick` would leave them, and their deadline would stay due
            lease_index.renewed.clear()
            return
        if self._measures:
            self._start_leases(lease_index.renewed, lease_index, now)
        elif _leader_of(records) == _name(leading):
            self._measures = True
            self._start_leases(list(lease_index.leases), lease_index, now)
        lease_index.renewed.clear()

    def tick(self, records: Records, now: Time) -> None:
        """Propose the commands that are due: the record of this leader, or the expiry of leases.

        Call it only when `follow` has seen all of `records`: amid a log entry, a lease may have been kept alive in the
        state whose old end has passed here.
        """
        if self._leading is None or not records.lease_index.leases:
            return
        if not self._measures:
            self._propose(0, RecordLeader(_name(self._leading), _leader_changes(records)), 0)
            return
        while self._queue and self._queue[0][0] <= now and self._has_room:
            end, number = heappop(self._queue)
            lease = records.lease_index.leases.get(number)
            if lease is None:
                self._ends.pop(number, None)
            elif self._ends.get(number) == end:
                self._set_end(number, now + RETRY_MS * MS)
                self._propose(number, ExpireLease(number, lease.version, _name(self._leading)), lease.size)

    def next_deadline(self) -> Time | None:
        """Return the time at which `tick` has work; None while there is none, or `MAX_ENDING` holds it up."""
        return self._queue[0][0] if self._queue and self._has_room else None

    def left_ms(self, lease: int, now: Time) -> float | None:
        """Return the remaining time of `lease` in milliseconds, as its holder counts it, or None on a replica that does
        not measure it."""
        end = self._ends.get(lease) if self._measures else None
        return max(0.0, (end - now) / MS / (1 + self._clock_drift_ppm / 1_000_000)) if end is not None else None

    def _start_leases(self, numbers: list[int], lease_index: LeaseIndex, now: Time) -> None:
        for number in numbers:
            lease = lease_index.leases.get(number)
            if lease is not None:
                self._set_end(number, now + lengthened(lease.terms.ttl_ms, self._clock_drift_ppm))
        if len(self._queue) > 2 * len(lease_index.leases) + 1000:  # most entries are out of date
            self._ends = {number: end for number, end in self._ends.items() if number in lease_index.leases}
            self._queue = [(end, number) for number, end in self._ends.items()]
            heapify(self._queue)

    def _set_end(self, number: int, end: Time) -> None:
        self._ends[number] = end
        heappush(self._queue, (end, number))

    @property
    def _has_room(self) -> bool:
        """True while further expiries may be proposed."""
        return self._ending < MAX_ENDING

    def _propose(self, number: int, command: RecordLeader | ExpireLease, size: int) -> None:
        if number not in self._proposed:
            self._proposed[number] = size
            self._ending += size
            self._submit(command, partial(self._answered, number))

    def _answered(self, number: int, _: Result | Refused) -> None:
        self._ending -= self._proposed.pop(number)


def _name(ballot: Ballot) -> str:
    return f"{ballot.round}.{ballot.node}"


def _leader_of(records: Records) -> str:
    record = records.internal(LEADER_KEY)
    return record.value.decode() if record is not None else ""


def _leader_changes(records: Records) -> int:
    record = records.internal(LEADER_KEY)
    return record.version if record is not None else 0
