"""The record of the leader leases that this replica may have granted (rule 17).

A restarted replica has forgotten its grants, and its settings may have changed meanwhile. Storage therefore keeps the
longest terms under which a grant may still run. Longer terms are durable before the first grant under them. Shorter
terms replace them once this process has run for one lease of the longer terms: every grant of earlier processes has
ended then.
"""

from paxos.types import GrantTerms, Time
from storage.base import StateWrite, Storage


class GrantRecord:
    """The terms of the grants that may still run, and those of the grants of this process."""

    def __init__(self, storage: Storage, own: GrantTerms, now: Time) -> None:
        """Store the longer terms of those in `storage` and of `own`, the settings of this process. They are durable on
        return. Raises StorageError."""
        stored = storage.recovered().granted
        self.longest = stored.joined(own)
        """Longest terms of a grant that may run now."""
        if self.longest != stored:
            storage.write([StateWrite(granted=self.longest)])
        self._own = own
        self._ends = now + self.longest.length if self.longest != own else None
        """Time from which no grant of longer terms runs; None once the terms of this process are stored."""

    def along(self, checkpoint: StateWrite | None, now: Time) -> StateWrite | None:
        """Return `checkpoint` with the terms of this process, once, when every grant of earlier processes has ended."""
        if self._ends is None or now < self._ends:
            return checkpoint
        self.longest, self._ends = self._own, None
        checkpoint = checkpoint or StateWrite()
        checkpoint.granted = self._own
        return checkpoint
