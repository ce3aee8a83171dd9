"""When to run for leader: after silence, at a random moment, and the longer the more often it failed.

Paxos is safe whoever runs, and makes progress when, for long enough, only one does (Lamport, "Paxos Made Simple",
section 2.4). Random delays that grow with each failure bring that about (rule 14).
"""

from random import Random

from paxos.options import Options
from paxos.types import MS, Time


class ElectionTimer:
    """The moment of the next candidacy."""

    def __init__(self, options: Options, rng: Random, due: Time) -> None:
        self._unit = options.election_jitter_ms * MS
        self._lease = options.lease_ms * MS
        self._longest = 2 * self._lease
        self._rng = rng
        self._failures = 0
        self.due = due + self._jitter()

    @property
    def candidate_timeout(self) -> Time:
        """How long a candidacy may take: one lease, and twice as long with each failure, or slow disks elect nobody."""
        return self._lease << min(self._failures, 6)

    def leader_seen(self, until: Time) -> None:
        """A leader is alive, whether it was granted a lease or not; nobody needs to run before `until`."""
        self._failures = 0
        self.due = until + self._jitter()

    def postpone(self, now: Time) -> None:
        """Somebody else was promised: leave it the time to become leader, twice as much with each time that nobody
        did."""
        longest = self._next_delay()
        self.due = max(self.due, now + longest + self._rng.randint(longest // 8, longest))

    def back_off(self, now: Time) -> None:
        """A candidacy or a leadership ended without success: wait, twice as long as the last time."""
        longest = self._next_delay()
        self.due = now + self._rng.randint(longest // 4, longest)

    def expire(self, now: Time) -> None:
        """A leader handed over to this replica."""
        self.due = now

    def _next_delay(self) -> Time:
        longest = min(self._unit << self._failures, self._longest)
        self._failures = min(self._failures + 1, 16)
        return longest

    def _jitter(self) -> Time:
        return self._rng.randint(self._unit // 8, self._unit)
