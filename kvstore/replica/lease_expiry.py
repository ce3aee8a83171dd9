"""Says which leases are over, where this replica leads.

The leader alone counts, in its memory, and from the moment that a lease was granted or kept alive as it has applied it:
later than its holder has asked for it, so a holder who counts from there is never surprised. Before it counts, it has
its ballot chosen as that of the leader that says so (`Lead`), and then every lease has its full length again, whatever
the leader before it has counted. What that one still says is in vain from then on, also when it was only stalled, and
so is what was said of a lease that was kept alive meanwhile (`Expire`).
"""

from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush

from kvstore.api.commands import Expire, Lead, Result
from kvstore.api.errors import Refused
from kvstore.state_machine.lease_index import LEADER_KEY, LeaseIndex
from kvstore.state_machine.view import Records
from paxos.types import MS, Ballot, Time

AGAIN_MS = 100
"""What was not done is tried again after so long."""
MOST_AT_ONCE = 500
"""When so many leases, and what hangs on them, are being ended, no other one is before that is done: writes of clients
come in between."""

Submit = Callable[[Lead | Expire, Callable[[Result | Refused], None]], None]


class LeaseExpiry:
    """Of one replica, whether it leads or not."""

    def __init__(self, submit: Submit) -> None:
        """`submit` has a command ordered and applied."""
        self._submit = submit
        self._leading: Ballot | None = None
        self._counts = False
        self._ends: dict[int, Time] = {}
        """When each lease is over."""
        self._queue: list[tuple[Time, int]] = []
        """The same in order, with some that are out of date."""
        self._saying: dict[int, int] = {}
        """Of which it is being said that they are over, with how much goes then; 0 stands for the leader itself."""
        self._ending = 0
        """The sum of these."""

    def follow(self, leading: Ballot | None, records: Records, now: Time) -> None:
        """Carry on with what was applied. `leading`: the ballot under which this replica leads, None if it does not."""
        lease_index = records.lease_index
        if leading != self._leading:
            self._leading, self._counts = leading, False
            self._ends, self._queue = {}, []
        if leading is None or not lease_index.leases:
            lease_index.renewed.clear()
            return
        if self._counts:
            self._start(lease_index.renewed, lease_index, now)
        elif _leader_of(records) == _name(leading):
            self._counts = True
            self._start(list(lease_index.leases), lease_index, now)
        lease_index.renewed.clear()

    def tick(self, records: Records, now: Time) -> None:
        """Time has passed."""
        if self._leading is None or not records.lease_index.leases:
            return
        if not self._counts:
            self._say(0, Lead(_name(self._leading), _leaders_before(records)), 0)
            return
        while self._queue and self._queue[0][0] <= now and self._has_room:
            end, number = heappop(self._queue)
            lease = records.lease_index.leases.get(number)
            if lease is None:
                self._ends.pop(number, None)
            elif self._ends.get(number) == end:
                self._start_again(number, now + AGAIN_MS * MS)
                self._say(number, Expire(number, lease.version, _name(self._leading)), lease.size)

    def next_deadline(self) -> Time | None:
        """When `tick` has something to do; None for when something was applied."""
        return self._queue[0][0] if self._queue and self._has_room else None

    def left_ms(self, lease: int, now: Time) -> float | None:
        """How long it lives if it is not kept alive; None where nobody counts."""
        end = self._ends.get(lease) if self._counts else None
        return max(0.0, (end - now) / MS) if end is not None else None

    def _start(self, numbers: list[int], lease_index: LeaseIndex, now: Time) -> None:
        for number in numbers:
            lease = lease_index.leases.get(number)
            if lease is not None:
                self._start_again(number, now + lease.terms.ttl_ms * MS)
        if len(self._queue) > 2 * len(lease_index.leases) + 1000:  # most of it is out of date
            self._ends = {number: end for number, end in self._ends.items() if number in lease_index.leases}
            self._queue = [(end, number) for number, end in self._ends.items()]
            heapify(self._queue)

    def _start_again(self, number: int, end: Time) -> None:
        self._ends[number] = end
        heappush(self._queue, (end, number))

    @property
    def _has_room(self) -> bool:
        """False while as much is being ended as may be."""
        return self._ending < MOST_AT_ONCE

    def _say(self, number: int, command: Lead | Expire, size: int) -> None:
        if number not in self._saying:
            self._saying[number] = size
            self._ending += size
            self._submit(command, partial(self._said, number))

    def _said(self, number: int, _: Result | Refused) -> None:
        """Whether it was done is seen when it is applied."""
        self._ending -= self._saying.pop(number)


def _name(ballot: Ballot) -> str:
    return f"{ballot.round}.{ballot.node}"


def _leader_of(records: Records) -> str:
    record = records.own(LEADER_KEY)
    return record.value.decode() if record is not None else ""


def _leaders_before(records: Records) -> int:
    record = records.own(LEADER_KEY)
    return record.version if record is not None else 0
