"""The reference implementation: the contract and nothing else, for the simulator and as the model in tests."""

from msgspec.structs import replace

from paxos.ready import Write
from paxos.types import NodeId, PValue, Slot
from storage.base import Identity, Marks, Recovered


class MemoryStorage:
    """Storage whose every write is durable at once. What a crash may lose is modelled by whoever hands writes over."""

    def __init__(self, cluster: str, node: NodeId, incarnation: int = 1) -> None:
        self._log: dict[Slot, PValue] = {}
        self._marks = Marks()
        self._recovered = Recovered(Identity(cluster, node, incarnation, boot=1))

    def reopen(self) -> "MemoryStorage":
        """What the next process finds: the same data, one boot later. Writes to the old one no longer reach it."""
        identity = self._recovered.identity
        again = MemoryStorage(identity.cluster, identity.node, identity.incarnation)
        again._log = dict(self._log)
        again._marks = self._marks
        again._recovered = Recovered(replace(identity, boot=identity.boot + 1), *self._marks)
        return again

    def recovered(self) -> Recovered:
        """See Storage."""
        return self._recovered

    @property
    def marks(self) -> Marks:
        """The promise, the chosen prefix and the end of the log as they are stored now."""
        return self._marks

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """See Storage."""
        page: list[PValue] = []
        for slot in range(from_slot, min(upto, self._marks.last) + 1):
            if (entry := self._log.get(slot)) is not None:
                max_bytes -= len(entry.value)
                if page and max_bytes < 0:
                    break
                page.append(entry)
        return page

    def write(self, writes: list[Write]) -> None:
        """See Storage."""
        self._marks = self._marks.after(writes)
        for write in writes:
            self._log.update((entry.slot, entry) for entry in write.accepts)

    def close(self) -> None:
        """See Storage."""
