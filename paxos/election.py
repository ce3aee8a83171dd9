"""The election timer: when a replica tries to become leader.

Paxos is safe with any number of candidates, and makes progress if there is only one for long enough (Lamport, "Paxos
Made Simple", section 2.4). Random delays that grow with each failed attempt make that likely (rule 14).
"""

from random import Random

from paxos.options import Options
from paxos.types import MS, Time


class ElectionTimer:
    """The time of this replica's next attempt to become leader."""

    def __init__(self, options: Options, rng: Random, due: Time) -> None:
        """Start the timer at `due`, plus a random delay."""
        self._unit = options.election_jitter_ms * MS
        self._lease = options.lease_ms * MS
        self._longest = 2 * self._lease
        self._rng = rng
        self._failures = 0
        self.due = due + self._jitter()

    @property
    def candidate_timeout(self) -> Time:
        """Time after which a candidate gives up: one lease, doubled with each failure so that replicas with slow disks
        can elect a leader."""
        return self._lease << min(self._failures, 6)

    def leader_seen(self, until: Time) -> None:
        """Restart the timer after contact with a leader, with or without a lease; no attempt is due before `until`."""
        self._failures = 0
        self.due = until + self._jitter()

    def postpone(self, now: Time) -> None:
        """Postpone the next attempt, so that another candidate or leader has time to lead. The delay doubles with each
        call until a leader is seen."""
        longest = self._next_delay()
        self.due = max(self.due, now + longest + self._rng.randint(longest // 8, longest))

    def back_off(self, now: Time) -> None:
        """Schedule the next attempt after a failed attempt or the end of a leadership. The delay doubles each time."""
        longest = self._next_delay()
        self.due = now + self._rng.randint(longest // 4, longest)

    def expire(self, now: Time) -> None:
        """Make an attempt due now: a leader handed over to this replica."""
        self.due = now

    def _next_delay(self) -> Time:
        longest = min(self._unit << self._failures, self._longest)
        self._failures = min(self._failures + 1, 16)
        return longest

    def _jitter(self) -> Time:
        return self._rng.randint(self._unit // 8, self._unit)
