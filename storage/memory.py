"""The reference implementation of the contract, in memory: for the simulator, and as the model of the tests."""

from bisect import bisect_right
from collections.abc import Sequence

from msgspec.structs import replace

from paxos.ready import Write
from paxos.types import NodeId, PValue, Slot
from storage.base import Change, DiskSpace, Recovered, StagedPage, StatePage, StateWrite, StoredIdentity
from storage.hard_state import HardState, Staging


class MemoryStorage:
    """A Storage in memory. Writes are durable at once, and no work is deferred. Its user simulates the losses of a
    crash."""

    def __init__(self, cluster: str, node: NodeId, incarnation: int = 1, *, members: tuple[NodeId, ...] = ()) -> None:
        self.space = DiskSpace.AMPLE
        self._log: dict[Slot, PValue] = {}
        self._state: dict[int, Change] = {}
        self._staged: dict[int, Change] = {}
        self._compacted = 0
        self._staging = Staging()
        self._hard_state = HardState()
        self._recovered = Recovered(StoredIdentity(cluster, node, incarnation, boot=1, members=members))

    def reopen(self) -> "MemoryStorage":
        """Return a storage with the same data, one boot later. Later writes to this one do not change it."""
        identity = self._recovered.identity
        again = MemoryStorage(identity.cluster, identity.node, identity.incarnation)
        again._log = dict(self._log)
        again._state = dict(self._state)
        again._staged = dict(self._staged)
        again._compacted, again._staging, again._hard_state = self._compacted, self._staging, self._hard_state
        log_bytes = sum(len(entry.value) for entry in self._log.values())
        again._recovered = self._hard_state.recovered(replace(identity, boot=identity.boot + 1), log_bytes)
        return again

    def recovered(self) -> Recovered:
        """See Storage."""
        return self._recovered

    @property
    def hard_state(self) -> HardState:
        """The current hard state."""
        return self._hard_state

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """See Storage."""
        page: list[PValue] = []
        if max(from_slot, 1) <= self._hard_state.truncation.slot:
            return page
        for slot in range(from_slot, min(upto, self._hard_state.last) + 1):
            if (entry := self._log.get(slot)) is not None:
                max_bytes -= len(entry.value)
                if page and max_bytes < 0:
                    break
                page.append(entry)
        return page

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        """See Storage."""
        rows, hard_state = (self._staged if staged else self._state), self._hard_state
        compacted = hard_state.staging.lowest if staged else hard_state.compact
        page: list[Change] = []
        positions = list(rows)
        for position in positions[bisect_right(positions, after) :]:
            change = rows[position]
            max_bytes -= len(change.key) + len(change.value or b"")
            if page and max_bytes < 0:
                return StatePage(page, compacted, None)
            page.append(change)
        return StatePage(page, compacted, None if staged else hard_state.progress)

    def write(self, writes: Sequence[Write]) -> None:
        """See Storage."""
        hard_state = self._hard_state.after(writes)
        for write in writes:
            self._log.update((entry.slot, entry) for entry in write.accepts if entry.slot > hard_state.truncation.slot)
            if isinstance(write, StateWrite):
                self._state.update((change.position, change) for change in write.changes)
                if write.staged is not None:
                    self._stage(write.staged)
        for slot in range(self._hard_state.truncation.slot + 1, hard_state.truncation.slot + 1):
            self._log.pop(slot, None)
        self._compact(hard_state.compact)
        self._hard_state = hard_state

    def _stage(self, staged: StagedPage) -> None:
        if staged.after == 0:
            self._staged = {}
        self._staged.update((change.position, change) for change in staged.page.changes)
        self._staging = self._staging.after(staged)
        if staged.page.progress is not None:
            self._state, self._compacted = self._staged, self._staging.lowest
            self._staged, self._staging = {}, Staging()

    def _compact(self, upto: int) -> None:
        positions = list(self._state)
        for position in positions[bisect_right(positions, self._compacted) : bisect_right(positions, upto)]:
            change = self._state[position]
            self._state.pop(change.supersedes, None)
            if change.value is None:
                del self._state[position]
        self._compacted = upto

    def tidy(self) -> None:
        """See Storage."""

    def maintain(self) -> bool:
        """See Storage."""
        return False

    def verify_files(self) -> None:
        """See Storage."""

    def close(self) -> None:
        """See Storage."""
