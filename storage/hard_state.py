"""The hard state: everything that storage holds besides the rows of the log and of the state.

The functions in this module compute the hard state after a write and refuse a write that breaks the contract. Every
Storage uses them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from paxos.ready import Write
from paxos.types import ZERO, Ballot, GrantTerms, Slot
from storage.base import (
    AppliedProgress,
    Founding,
    Recovered,
    SeenStart,
    StagedPage,
    StateWrite,
    StorageError,
    StoredIdentity,
    Truncation,
    follows,
)

MOST_SEEN = 256
"""Number of seen starts that are kept: those of the peers that were linked last, far more than there are members."""


class Staging(NamedTuple):
    """The extent of a staged snapshot, see StagedPage."""

    position: int = 0
    """Highest position of the staged pages, 0 if none is staged."""
    compacted: int = 0
    """Position up to which the first page is compacted; the whole snapshot is, once it is installed."""
    lowest: int = 0
    """Lowest position up to which a staged page is compacted. Records superseded between `lowest` and `compacted` may
    be staged; they are removed when the snapshot is installed."""

    def after(self, staged: StagedPage) -> "Staging":
        """Return the extent with one more page. Raises StorageError if the page does not follow the staged ones."""
        after, page = staged.after, staged.page
        first = after == 0
        if not first and after != self.position:
            raise misuse(
                f"a staged page begins after position {after}, but the staged snapshot ends at {self.position}"
            )
        base = page.compacted if first else self.compacted
        lowest = page.compacted if first else min(page.compacted, self.lowest)
        if page.compacted > after and not lowest == base == page.compacted:
            raise misuse(
                f"a staged page after position {after} is compacted up to {page.compacted}, unlike the pages before"
            )
        position = after
        for change in page.changes:
            if not _may_follow(change.position, position, base):
                raise misuse(f"a staged page has position {change.position} after position {position}")
            position = change.position
        if page.progress is not None and page.progress.position != max(position, base):
            raise misuse(
                f"a staged snapshot ends at position {max(position, base)}, but its progress has position "
                f"{page.progress.position}"
            )
        return Staging(position, base, lowest)


class HardState(NamedTuple):
    """The hard state of one replica. Its fields only go up, except `compact`, `staging` and `restored`, which an
    installed snapshot replaces, `granted`, and `seen`."""

    promised: Ballot = ZERO
    """The promise."""
    chosen: Slot = 0
    """The chosen prefix."""
    last: Slot = 0
    """Highest slot with an accepted value, at least `chosen`."""
    truncation: Truncation = Truncation()
    progress: AppliedProgress = AppliedProgress()
    compact: int = 0
    """Position up to which superseded rows are no longer needed."""
    staging: Staging = Staging()
    founding: Founding | None = None
    restored: AppliedProgress | None = None
    """Progress of the restored state whose rows are staged until the cluster is founded."""
    granted: GrantTerms = GrantTerms()
    """Longest terms of the leader leases that may still be granted (rule 17)."""
    seen: tuple[SeenStart, ...] = ()
    """Newest start on the data of each peer, in the order of their handshakes (rule 28)."""

    def after(self, writes: Sequence[Write]) -> "HardState":
        """Return the hard state after `writes`. Raises StorageError if they break the contract."""
        hard_state = self
        for write in writes:
            if isinstance(write, StateWrite) and write.staged is not None:
                hard_state = _after_page(hard_state, write.staged)  # first: it may extend the chosen prefix
            hard_state = _after_votes(hard_state, write)
            if isinstance(write, StateWrite):
                hard_state = _after_state(hard_state, write)
        return hard_state

    def recovered(self, identity: StoredIdentity, log_bytes: int) -> Recovered:
        """Return the durable state that the storage reports when it is opened."""
        return Recovered(
            identity,
            self.promised,
            self.chosen,
            self.last,
            self.truncation,
            self.progress,
            self.compact,
            log_bytes,
            self.staging.position,
            self.staging.compacted,
            founding=self.founding,
            restored=self.restored,
            granted=self.granted,
            seen=self.seen,
        )


def _after_votes(hard_state: HardState, write: Write) -> HardState:
    promised, chosen, last = hard_state.promised, hard_state.chosen, hard_state.last
    if write.promise is not None:
        if write.promise < promised:
            raise misuse(f"the promise would go down from {promised} to {write.promise}")
        promised = write.promise
    for entry in write.accepts:
        last = max(last, entry.slot)
    if write.chosen is not None:
        if write.chosen < chosen:
            raise misuse(f"the chosen prefix would go down from {chosen} to {write.chosen}")
        if write.chosen > last:
            raise misuse(f"the chosen prefix {write.chosen} would exceed the end of the log, {last}")
        chosen = write.chosen
    return hard_state._replace(promised=promised, chosen=chosen, last=last)


def _after_state(hard_state: HardState, write: StateWrite) -> HardState:
    if write.staged is not None and (write.changes or write.progress is not None):
        raise misuse("a write has both a staged page and changes of the own state")
    if write.progress is not None:
        hard_state = _after_progress(hard_state, write, write.progress)
    elif write.changes:
        raise misuse(f"changes up to position {write.changes[-1].position} come without progress")
    if write.truncate is not None:
        hard_state = _after_truncation(hard_state, write.truncate)
    if write.compact:
        hard_state = _after_compact(hard_state, write.compact)
    if write.founding is not None:
        hard_state = _after_founding(hard_state, write.founding)
    if write.restored is not None:
        hard_state = _after_restored(hard_state, write.restored)
    if write.granted is not None:
        hard_state = hard_state._replace(granted=write.granted)
    if write.seen is not None:
        others = [start for start in hard_state.seen if start.incarnation != write.seen.incarnation]
        hard_state = hard_state._replace(seen=(*others, write.seen)[-MOST_SEEN:])
    return hard_state


def _after_progress(hard_state: HardState, write: StateWrite, to: AppliedProgress) -> HardState:
    stored = hard_state.progress
    if to.applied < stored.applied:
        raise misuse(f"the applied slot would go down from {stored.applied} to {to.applied}")
    if to.applied > hard_state.chosen:
        raise misuse(f"the applied slot {to.applied} would exceed the chosen prefix, {hard_state.chosen}")
    last = stored.position
    for change in write.changes:
        if not follows(change.position, last):
            raise misuse(f"a change has position {change.position}, which does not follow {last}")
        last = change.position
    if to.position != last:
        raise misuse(f"the changes end at position {last}, but the progress has position {to.position}")
    return hard_state._replace(progress=to)


def _after_truncation(hard_state: HardState, truncation: Truncation) -> HardState:
    if truncation.slot < hard_state.truncation.slot:
        raise misuse(f"the truncation point would go down from slot {hard_state.truncation.slot} to {truncation.slot}")
    if truncation.slot > hard_state.progress.applied:
        raise misuse(
            f"the truncation point {truncation.slot} would exceed the applied slot {hard_state.progress.applied}"
        )
    return hard_state._replace(truncation=truncation)


def _after_compact(hard_state: HardState, compact: int) -> HardState:
    if compact < hard_state.compact:
        raise misuse(f"the compacted position would go down from {hard_state.compact} to {compact}")
    if compact > hard_state.progress.position:
        raise misuse(f"the compacted position {compact} would exceed the stored one, {hard_state.progress.position}")
    return hard_state._replace(compact=compact)


def _after_founding(hard_state: HardState, founding: Founding) -> HardState:
    stored = hard_state.founding
    if stored is not None and founding not in {stored, replace(stored, complete=True)}:
        raise misuse(f"the founding would change from {stored} to {founding}")
    return hard_state._replace(founding=founding)


def _after_restored(hard_state: HardState, restored: AppliedProgress) -> HardState:
    end = max(hard_state.staging.position, hard_state.staging.compacted)
    if restored.position != end:
        raise misuse(f"a restored state has position {restored.position}, but its staged pages end at {end}")
    return hard_state._replace(restored=restored)


def _after_page(hard_state: HardState, staged: StagedPage) -> HardState:
    staging = hard_state.staging.after(staged)
    progress = staged.page.progress
    if staged.after == 0 or progress is not None:
        hard_state = hard_state._replace(restored=None)
    if progress is None:
        return hard_state._replace(staging=staging)
    if progress.applied < hard_state.progress.applied:
        raise misuse(f"the applied slot would go down from {hard_state.progress.applied} to {progress.applied}")
    applied = progress.applied
    return hard_state._replace(
        chosen=max(hard_state.chosen, applied),
        last=max(hard_state.last, applied),
        truncation=Truncation(applied, progress.chain),
        progress=progress,
        compact=staging.compacted,
        staging=Staging(),
    )


def _may_follow(position: int, before: int, base: int) -> bool:
    """Return True if no change is missing between the positions `before` and `position`. Changes at positions up to
    `base` may be left out."""
    return before < position and (position <= base or follows(position, max(before, base)))


def misuse(violation: str) -> StorageError:
    """Return the error for a write that breaks the contract."""
    return StorageError(
        f"{violation}: the write was refused and nothing of it was stored. This is a bug in kvstore, not damage of the "
        "data: start the replica again and report this message"
    )
