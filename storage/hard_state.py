"""What a storage keeps beside the rows, and the rule for how it may move: the same for every Storage."""

from collections.abc import Sequence
from typing import NamedTuple

from paxos.ready import Write
from paxos.types import ZERO, Ballot, Slot
from storage.base import (
    AppliedProgress,
    Recovered,
    StagedPage,
    StateWrite,
    StorageError,
    StoredIdentity,
    Truncation,
    follows,
)


class Staging(NamedTuple):
    """What is staged: rows up to `position`, see StagedPage.

    `compacted` is that of the first page, and will be that of the whole. `lowest` is the least of any page: what was
    superseded between the two may be there, and goes when the whole is installed.
    """

    position: int = 0
    compacted: int = 0
    lowest: int = 0

    def after(self, staged: StagedPage) -> "Staging":
        """What is staged with one page more. Raises StorageError when the page does not follow."""
        after, page = staged.after, staged.page
        first = after == 0
        if not first and after != self.position:
            raise misuse(f"a page behind position {after} would be staged, but what is staged ends at {self.position}")
        base = page.compacted if first else self.compacted
        lowest = page.compacted if first else min(page.compacted, self.lowest)
        if page.compacted > after and not lowest == base == page.compacted:
            raise misuse(f"a page that is compacted up to {page.compacted} would be staged behind position {after}")
        position = after
        for change in page.changes:
            if not _may_follow(change.position, position, base):
                raise misuse(f"position {change.position} would be staged behind position {position}")
            position = change.position
        if page.progress is not None and page.progress.position != max(position, base):
            raise misuse(f"the state of position {page.progress.position} would end at {max(position, base)}")
        return Staging(position, base, lowest)


class HardState(NamedTuple):
    """The promise, how far the log is chosen and goes, where it begins, and how far the state came."""

    promised: Ballot = ZERO
    chosen: Slot = 0
    last: Slot = 0
    truncation: Truncation = Truncation()
    progress: AppliedProgress = AppliedProgress()
    compact: int = 0
    """The highest position up to which superseded rows are no longer needed."""
    staging: Staging = Staging()

    def after(self, writes: Sequence[Write]) -> "HardState":
        """The hard_state once `writes` are stored. Raises StorageError when they break the contract."""
        hard_state = self
        for write in writes:
            if isinstance(write, StateWrite) and write.staged is not None:
                hard_state = _after_page(hard_state, write.staged)  # first: the chosen prefix may rest on it
            hard_state = _after_votes(hard_state, write)
            if isinstance(write, StateWrite):
                hard_state = _after_state(hard_state, write)
        return hard_state

    def recovered(self, identity: StoredIdentity, log_bytes: int) -> Recovered:
        """The same for whoever opens the storage."""
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
            raise misuse(f"the chosen prefix {write.chosen} would pass the end of the log, {last}")
        chosen = write.chosen
    return hard_state._replace(promised=promised, chosen=chosen, last=last)


def _after_state(hard_state: HardState, write: StateWrite) -> HardState:
    if write.staged is not None and (write.changes or write.progress is not None):
        raise misuse("a staged state and changes of the own one would be stored together")
    if write.progress is not None:
        hard_state = _after_progress(hard_state, write, write.progress)
    elif write.changes:
        raise misuse(f"changes up to position {write.changes[-1].position} would be stored without progress")
    if write.truncate is not None:
        hard_state = _after_truncation(hard_state, write.truncate)
    if write.compact:
        hard_state = _after_compact(hard_state, write.compact)
    return hard_state


def _after_progress(hard_state: HardState, write: StateWrite, to: AppliedProgress) -> HardState:
    stored = hard_state.progress
    if to.applied < stored.applied:
        raise misuse(f"the applied slot would go down from {stored.applied} to {to.applied}")
    if to.applied > hard_state.chosen:
        raise misuse(f"the applied slot {to.applied} would pass the chosen prefix, {hard_state.chosen}")
    last = stored.position
    for change in write.changes:
        if not follows(change.position, last):
            raise misuse(f"a change has position {change.position}, which does not follow {last}")
        last = change.position
    if to.position != last:
        raise misuse(f"the changes end at position {last}, but the state would be of position {to.position}")
    return hard_state._replace(progress=to)


def _after_truncation(hard_state: HardState, truncation: Truncation) -> HardState:
    if truncation.slot < hard_state.truncation.slot:
        raise misuse(f"the cut would go down from slot {hard_state.truncation.slot} to {truncation.slot}")
    if truncation.slot > hard_state.progress.applied:
        raise misuse(f"the cut at slot {truncation.slot} would pass the applied slot, {hard_state.progress.applied}")
    return hard_state._replace(truncation=truncation)


def _after_compact(hard_state: HardState, compact: int) -> HardState:
    if compact < hard_state.compact:
        raise misuse(f"the compacted position would go down from {hard_state.compact} to {compact}")
    if compact > hard_state.progress.position:
        raise misuse(f"compacting up to position {compact} would pass the stored one, {hard_state.progress.position}")
    return hard_state._replace(compact=compact)


def _after_page(hard_state: HardState, staged: StagedPage) -> HardState:
    staging = hard_state.staging.after(staged)
    progress = staged.page.progress
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
    """Up to `base` some are left out, and none behind it."""
    return before < position and (position <= base or follows(position, max(before, base)))


def misuse(what: str) -> StorageError:
    """The error for a write that breaks the contract."""
    return StorageError(
        f"{what}: the write was refused and nothing of it was stored. "
        "This is a bug of the replica, not of the disk: start it again, and report this line"
    )
