"""The contract between a replica and its storage.

Storage holds the acceptor's records (its promise and the accepted entries), the state that results from the applied
entries (changes of keys, by position), and the slot up to which the log is applied. One transaction may hold records of
all three kinds, so that the applied slot and the state always agree (rule 6).

    log     slots       | truncated | kept for lagging peers | applied, chosen, last >
    state   positions   | only records that are alive | compacted: every change after it >

The log up to the applied slot is kept for a while, for peers that lag a little, and then truncated. A peer that lacks
truncated slots gets a snapshot of the state. Superseded records are kept for a while, as history, and then compacted.

A revision may hold several changes. Each change has a position, `revision * 2**20 + sub-revision`. The position of the
next change has the next sub-revision of the same revision, or is the first one of the next revision, see `follows`.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from paxos.ready import Write
from paxos.types import ZERO, Ballot, GrantTerms, NodeId, PValue, Slot
from storage.lineage import Lineage

SUB_REVISION_BITS = 20
LAST_SUB_REVISION = (1 << SUB_REVISION_BITS) - 1
"""Highest sub-revision of a change; the first one is 0."""

CHAIN_BYTES = 16
GENESIS = bytes(CHAIN_BYTES)
"""Initial value of the chain, the running hash over the values of the log."""


class StorageError(Exception):
    """Unusable storage. The message says what happened, to which file, and what to do next."""


class DiskFullError(StorageError):
    """No space is left on the disk, and no reserve. Nothing of the write was stored."""


class DiskSpace(StrEnum):
    """The space that is left on the disk of a storage."""

    AMPLE = "ample"
    LOW = "low"
    """The disk was full, and the reserve was given up: only small writes should be stored."""
    CRITICAL = "critical"
    """Most of the reserve is used, too."""


class DamagedError(StorageError):
    """Stored data that differs from the data that was written, or lacks part of it. The missing part may contain votes,
    so the replica uses nothing of the data (rule 5)."""


class StoredIdentity(msgspec.Struct, frozen=True):
    """The identity of the data (rule 28). The triple (node, incarnation, boot) identifies one run of one process."""

    cluster: str
    node: NodeId
    incarnation: int
    """Random number that is drawn when the storage is created."""
    boot: int
    """Number of times the storage was opened, from 1. It is durable before opening returns."""
    members: tuple[NodeId, ...] = ()
    """Voters of the cluster when the data was created; empty for a replica that joined later."""


class Founding(msgspec.Struct, frozen=True, array_like=True):
    """The founding of the cluster, as far as this replica has agreed to it (rule 30)."""

    members: tuple[tuple[NodeId, int], ...]
    """Each member that takes part and the incarnation of its data, in order of the names. The incarnation is 0 in data
    that was founded by an earlier release."""
    absent: tuple[NodeId, ...] = ()
    """Configured members that do not take part, in order: they join later."""
    complete: bool = False
    """True once every member that takes part has agreed. Until then the replica has no membership."""
    restored: str = ""
    """Mark of the restored state with which the data of every member begins, empty for new data (rule 31)."""


class SeenStart(NamedTuple):
    """The newest start on the data of a peer with which this replica was linked (rule 28)."""

    incarnation: int
    boot: int
    life: int
    """Random number of the start, see `storage.lineage`."""


def revision_of(position: int) -> int:
    """Return the revision of a change, or of the last change of a state."""
    return position >> SUB_REVISION_BITS


def sub_revision_of(position: int) -> int:
    """Return the sub-revision of a change: its index in its revision, from 0."""
    return position & LAST_SUB_REVISION


def first_of(revision: int) -> int:
    """Return the position of the first change of `revision`."""
    return revision << SUB_REVISION_BITS


def end_of(revision: int) -> int:
    """Return the highest position that a change of `revision` may have."""
    return first_of(revision + 1) - 1


def follows(position: int, before: int) -> bool:
    """Return True if a change at `position` may come next after a change at `before`: no change lies between them."""
    return position == before + 1 or position == first_of(revision_of(before) + 1)


class Change(NamedTuple):
    """A row of the state: the change of one key at `position`. A put holds the whole new record."""

    position: int
    key: bytes
    value: bytes | None
    """The new value, None for a deletion."""
    create_revision: int
    """Revision in which the key was created, 0 for a deletion."""
    version: int
    """Number of puts since the key was created, 0 for a deletion."""
    supersedes: int
    """Position of the put that this change replaced or deleted, 0 if the key was absent."""


class AppliedProgress(msgspec.Struct, frozen=True):
    """The progress of the state machine: it has applied all slots up to `applied`, which made the rows up to
    `position`."""

    applied: Slot = 0
    position: int = 0
    chain: bytes = GENESIS
    """Running hash over the values of the applied slots."""
    digest: int = 0
    """Sum of the digests of all records that are alive."""
    extra: bytes = b""
    """State that is not in rows; opaque to the storage."""


class Truncation(NamedTuple):
    """The truncation point of the log: the log begins after `slot`, and `chain` is the running hash up to that slot."""

    slot: Slot = 0
    chain: bytes = GENESIS


class StatePage(NamedTuple):
    """Rows of the state after some position, in order.

    A page may follow earlier pages of the same state only if its `compacted` is at most the position after which the
    page begins, or the same in all pages so far. Otherwise deletions of keys in the earlier pages may be missing.
    """

    changes: list[Change]
    compacted: int
    """Position up to which superseded records and deletions are left out; after this position the page has every
    change. A record up to this position may be left out even if a change after this position superseded it. A page of a
    staged state has the lowest value of the staged pages."""
    progress: AppliedProgress | None
    """Set on the last page: all pages together are the whole state as of this progress."""


class StagedPage(msgspec.Struct, frozen=True):
    """A page of a peer's snapshot, which will replace the state of this replica.

    The first page, with `after` 0, drops all pages staged before. The last page has `progress`: the transaction that
    stores it replaces the state by the staged one.
    """

    after: int
    """Position after which the rows of the page begin."""
    page: StatePage


class StateWrite(Write):
    """A Write with the records of the state machine. The truncation point and `compact` never go down."""

    changes: list[Change] = msgspec.field(default_factory=list)
    """Changes in order and without a gap, from the stored position to the position of `progress`."""

    progress: AppliedProgress | None = None
    """New progress, not below the stored one; None if the state does not change. Its `applied` is at most the chosen
    prefix that is stored with it."""

    truncate: Truncation | None = None
    """New truncation point, at most the applied slot; None for no change. The rows up to the point are removed later,
    in slices."""

    compact: int = 0
    """Position up to which superseded records and deletions are no longer needed, 0 for no change. Their rows are
    removed later, in slices."""

    staged: StagedPage | None = None
    """Page of a snapshot; not together with changes or progress."""

    founding: Founding | None = None
    """The founding, None for no change. Its members never change, and it stays complete."""

    restored: AppliedProgress | None = None
    """Progress of a restored state, all of whose rows are staged with this write; None for no change. Storage keeps the
    progress until the staged snapshot is complete, or another one begins."""

    granted: GrantTerms | None = None
    """Longest terms of the leader leases that may still be granted, None for no change."""

    seen: SeenStart | None = None
    """Start of a peer, which takes the place of earlier starts on the same data; None for no change."""


class Recovered(msgspec.Struct):
    """The durable state at the time of opening."""

    identity: StoredIdentity
    promised: Ballot = ZERO
    chosen: Slot = 0
    """Slot up to which all slots are known to be chosen. After the truncation point the log has their chosen values."""
    last: Slot = 0
    """Highest slot with an accepted value, at least `chosen`."""
    truncation: Truncation = Truncation()
    progress: AppliedProgress = AppliedProgress()
    compacted: int = 0
    """Highest `compact` so far, or the position up to which an installed snapshot was compacted. Rows up to it may
    still be stored, see `Storage.maintain`."""
    log_bytes: int = 0
    """Bytes of the values in the log after the truncation point."""
    staged: int = 0
    """Highest position of the staged pages, 0 if no snapshot is staged."""
    staged_compacted: int = 0
    """Position up to which the staged snapshot is compacted once it is installed: that of its first page."""
    replaces: int = 0
    """Incarnation of the damaged data that this data replaces, 0 for none."""
    founding: Founding | None = None
    """The founding to which the replica has agreed, None for none."""
    restored: AppliedProgress | None = None
    """Progress of the restored state whose rows are staged until the cluster is founded, None for none."""
    granted: GrantTerms = GrantTerms()
    """Longest terms of the leader leases that an earlier process may have granted (rule 17)."""
    seen: tuple[SeenStart, ...] = ()
    """Newest start on the data of each peer."""
    lineage: Lineage = Lineage()
    """Starts on this data, this one included. Storage that is not in files has none."""


class Storage(Protocol):
    """The durable state of one replica. All methods block; the host calls them one at a time.

    A StorageError or OSError after opening must end the process: after a failed fsync the content of the disk is
    unknown (rule 4).
    """

    space: DiskSpace
    """Space that is left, as of the last `write` or `verify_files`."""

    def recovered(self) -> Recovered:
        """Return the durable state at the time of opening."""

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """Return the accepted entries of slots `from_slot` .. `upto` in order.

        Returns at least one entry if there is one, and further entries while the sum of the values stays within
        `max_bytes`. Returns no entry if `from_slot` is truncated. Raises DamagedError if a row fails its checksum, or a
        row of the chosen prefix is missing (rule 5).
        """

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        """Return the rows of the state after position `after`, or those of the staged snapshot.

        Returns at least one row if there is one, and further rows while the sum of keys and values stays within
        `max_bytes`. A page of the staged snapshot never has `progress`. Raises DamagedError if a row fails its
        checksum.
        """

    def write(self, writes: Sequence[Write]) -> None:
        """Store the records of all `writes` in order, in one transaction that is durable on return.

        A later entry of a slot replaces an earlier one; an entry of a truncated slot is dropped. Writes without records
        do not touch the disk. Raises StorageError, and stores nothing, if a value that may only rise would go down, if
        `chosen` would exceed the end of the log, or if the state would have a gap.
        """

    def tidy(self) -> None:
        """Do the work that a write has made due, but that its votes need not wait for, such as a checkpoint of the
        write-ahead log. The next `write` begins with it otherwise.
        """

    def maintain(self) -> bool:
        """Do one slice of deferred work: remove truncated, compacted and replaced rows.

        Returns False if no work is left. `write` also does slices, so that the storage stays bounded under any load.
        """

    def verify_files(self) -> None:
        """Raise StorageError if the files of the storage were removed or replaced since they were opened. `write` does
        the same before it returns. Update `space`."""

    def close(self) -> None:
        """Close the file. All written data stays."""


def has_records(write: Write) -> bool:
    """Return True if `write` has anything to store. A write with only votes waits for earlier writes and stores
    nothing."""
    if write.promise is not None or write.accepts or write.chosen is not None:
        return True
    if not isinstance(write, StateWrite):
        return False
    records = (write.progress, write.truncate, write.staged, write.founding, write.restored, write.granted, write.seen)
    return bool(write.changes or write.compact) or any(record is not None for record in records)


def scan(storage: Storage, from_slot: Slot, upto: Slot, page_bytes: int = 1 << 20) -> Iterator[PValue]:
    """Yield the accepted entries of slots `from_slot` .. `upto`; read one page at a time to limit memory."""
    while from_slot <= upto:
        page = storage.read(from_slot, upto, page_bytes)
        if not page:
            return
        yield from page
        from_slot = page[-1].slot + 1
