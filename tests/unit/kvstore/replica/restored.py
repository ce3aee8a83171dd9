"""Data that was restored from a backup, in memory."""

from kvstore.api.commands import Put
from kvstore.replica.applier import Applier
from paxos.types import NodeId, Slot
from storage.base import Change, StagedPage, StatePage, StateWrite, end_of, first_of
from storage.memory import MemoryStorage

PUTS = [Put(b"r0", b"restored"), Put(b"r1", b"too")]
"""The records of the restored state, in order of their revisions."""


def restored_rows(slot: Slot) -> list[Change]:
    """Return the rows of the restored state as of `slot`. The last one has the revision `slot`."""
    first = slot - len(PUTS) + 1
    return [
        Change(first_of(revision), put.key, put.value, revision, 1, supersedes=0)
        for revision, put in enumerate(PUTS, first)
    ]


def restored_writes(slot: Slot, mark: str = "") -> list[StateWrite]:
    """Return the writes that create a restored state as of `slot`, as `kvstore restore` does."""
    rows = restored_rows(slot)
    applier = Applier([])
    for row in rows:
        applier.machine.load(row)
    applier.machine.position, applier.applied = end_of(slot), slot
    applier.restored = mark or f"{slot}:a"
    return [
        StateWrite(staged=StagedPage(0, StatePage(rows, end_of(slot), None))),
        StateWrite(restored=applier.progress()),
    ]


def restored_storage(node: NodeId, incarnation: int, *, slot: Slot, mark: str = "") -> MemoryStorage:
    """Return data of `node` with a restored state as of `slot`."""
    storage = MemoryStorage("test", node, incarnation)
    for write in restored_writes(slot, mark):
        storage.write([write])
    return storage.reopen()
