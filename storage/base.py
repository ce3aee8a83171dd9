"""The contract between a replica and its storage.

Three things are stored, in transactions that hold parts of all of them: what the acceptor must not forget (promise and
accepted entries), the state that applying the chosen entries gave (rows by revision), and how far that went (rule 6).

    log      slot:   cut | ........ kept ........ applied ...... chosen ...... last
    state    position:   only what is alive | compacted ... every change ... | position of the last one

The log below the applied slot is kept for peers that lag a little, and cut in time; a peer that lags behind the cut is
sent the state. What is superseded is kept for a while, and compacted.

A revision may hold many changes, so each has a position, `revision * 2**20 + number`. Positions follow each other as
`follows` says: the next number of the same revision, or the first one of the next revision.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from paxos.ready import Write
from paxos.types import ZERO, Ballot, NodeId, PValue, Slot

SUB_REVISION_BITS = 20
LAST_SUB_REVISION = (1 << SUB_REVISION_BITS) - 1
"""Of a change in its revision; the first is 0."""

CHAIN_BYTES = 16
GENESIS = bytes(CHAIN_BYTES)
"""The chain before the first slot."""


class StorageError(Exception):
    """Storage cannot be used. The message says what is wrong with it and what to do next."""


class DamagedError(StorageError):
    """What is stored is not what was written, or not all of it. It may have held votes, so nothing of it is used
    (rule 5)."""


class StoredIdentity(msgspec.Struct, frozen=True):
    """Whose data this is (rule 28). `incarnation` is drawn once, when the storage is created; `boot` counts its
    openings from 1 and is durable before opening returns: (node, incarnation, boot) names one life of one process.
    `members` are those that the data began with, none for data of a replica that joined."""

    cluster: str
    node: NodeId
    incarnation: int
    boot: int
    members: tuple[NodeId, ...] = ()


def revision_of(position: int) -> int:
    """The revision that a change belongs to, or that a state is of."""
    return position >> SUB_REVISION_BITS


def sub_revision_of(position: int) -> int:
    """Which change of its revision it is, from 0."""
    return position & LAST_SUB_REVISION


def first_of(revision: int) -> int:
    """The position of the first change of `revision`."""
    return revision << SUB_REVISION_BITS


def end_of(revision: int) -> int:
    """No change of `revision` has a position above this."""
    return first_of(revision + 1) - 1


def follows(position: int, before: int) -> bool:
    """True when no change can lie between the two."""
    return position == before + 1 or position == first_of(revision_of(before) + 1)


class Change(NamedTuple):
    """A row of the state: what the change at `position` did to `key`.

    A put has the whole record after it. A deletion has no value, and `create_revision` and `version` are 0.
    `supersedes` is the position of the put that this change replaced or deleted, 0 where the key was absent.
    """

    position: int
    key: bytes
    value: bytes | None
    create_revision: int
    version: int
    supersedes: int


class AppliedProgress(msgspec.Struct, frozen=True):
    """How far the state machine came: all slots up to `applied` gave the rows up to `position`.

    `chain` is a running hash of the values of these slots, `digest` a sum over all records that are alive, and `extra`
    what else the state holds, opaque here.
    """

    applied: Slot = 0
    position: int = 0
    chain: bytes = GENESIS
    digest: int = 0
    extra: bytes = b""


class Truncation(NamedTuple):
    """The log begins behind `slot`; `chain` is the running hash up to it."""

    slot: Slot = 0
    chain: bytes = GENESIS


class StatePage(NamedTuple):
    """Rows of the state behind some position, in order. `progress` is set when they reach its end: these rows and those
    before them are the whole state as of `progress`. Everything superseded up to `compacted` is left out, and behind it
    every change is there. What was put up to `compacted` and superseded a little later may be left out, too.

    So a page follows others only while `compacted` is not above the position that they reach, or the same in all of
    them. Otherwise deletions are missing of keys that they hold. That of what is staged is the least of its pages.
    """

    changes: list[Change]
    compacted: int
    progress: AppliedProgress | None


class StagedPage(msgspec.Struct, frozen=True):
    """A page of another replica's state that shall replace the own one: the rows behind position `after`, see
    StatePage. With `after` 0 it begins anew, and what was staged before is dropped. The last page has `progress`: the
    transaction that stores it puts the staged state in the place of the old one, whole or not at all."""

    after: int
    page: StatePage


class StateWrite(Write):
    """A Write, and what the state machine has to store with it.

    A write with neither changes nor progress leaves the state as it is. `cut` and `compact` only ever rise.
    """

    changes: list[Change] = msgspec.field(default_factory=list)
    """In order, from the stored position on to that of `progress`, without a gap."""

    progress: AppliedProgress | None = None
    """Not below the stored one, `applied` at most the chosen prefix that is stored with it."""

    truncate: Truncation | None = None
    """Entries up to this slot, at most the applied one, are no longer needed. Their rows go later, in slices."""

    compact: int = 0
    """What is superseded or deleted up to this position is no longer needed. Its rows go later, in slices."""

    staged: StagedPage | None = None
    """Not together with changes or progress of one's own."""


class Recovered(msgspec.Struct):
    """What was durable when the storage was opened."""

    identity: StoredIdentity
    promised: Ballot = ZERO
    chosen: Slot = 0
    """Every slot up to here is known to be chosen, and behind the cut present in the log with its chosen value."""
    last: Slot = 0
    """Highest slot with an accepted value; not below `chosen`."""
    truncation: Truncation = Truncation()
    progress: AppliedProgress = AppliedProgress()
    compacted: int = 0
    """The highest `compact`, and what an installed state left out. Rows may still be there, see `Storage.maintain`."""
    log_bytes: int = 0
    """Sum of the values in the log behind the cut."""
    staged: int = 0
    """Highest position of the pages that were staged and not installed, 0 when there are none."""
    staged_compacted: int = 0
    """What the first of these pages left out, and so will the whole."""
    replaces: int = 0
    """The incarnation of the damaged data that this data takes the place of; 0 for none."""


class Storage(Protocol):
    """One replica's durable state. All methods block; the host calls them from one thread, one after the other.

    Any StorageError or OSError after opening ends the process: after a failed fsync nothing can be trusted (rule 4).
    """

    def recovered(self) -> Recovered:
        """What was durable at opening."""

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """Accepted entries of `from_slot` .. `upto` in slot order, at least one where there is one, then only as many
        as keep the sum of the values within `max_bytes`. None at all when `from_slot` is cut. Raises StorageError on
        damage (rule 5): a row that is not what was written, or an absent one of the chosen prefix."""

    def read_state(self, after: int, max_bytes: int, *, staged: bool = False) -> StatePage:
        """Rows behind position `after`, at least one where there is one, then only as many as keep the sum of keys and
        values within `max_bytes`; of the state, or of what is staged (then `progress` is always None). Raises
        StorageError on a damaged row."""

    def write(self, writes: Sequence[Write]) -> None:
        """Store the records of all `writes` in order, as one transaction, durable on return: all or nothing.

        A later accept of a slot replaces the earlier; an accept of a slot that is cut is dropped. Nothing that can only
        rise goes down, `chosen` never passes the end of the log, and the state follows without a gap: StorageError, and
        nothing of `writes` is stored. Writes without records touch no disk."""

    def maintain(self) -> bool:
        """One slice of what was put off: rows that are cut, compacted or of a replaced state go. False when nothing is
        left to do. `write` does a slice too, so that the storage stays bounded under any load."""

    def close(self) -> None:
        """Release the file. Everything written stays."""


def has_records(write: Write) -> bool:
    """True when there is something to store; votes alone only wait for what was handed over before them."""
    if write.promise is not None or write.accepts or write.chosen is not None:
        return True
    return isinstance(write, StateWrite) and (
        bool(write.changes or write.compact)
        or not (write.progress is None and write.truncate is None and write.staged is None)
    )


def scan(storage: Storage, from_slot: Slot, upto: Slot, page_bytes: int = 1 << 20) -> Iterator[PValue]:
    """Every accepted entry of `from_slot` .. `upto`, page by page, so that a long log needs little memory."""
    while from_slot <= upto:
        page = storage.read(from_slot, upto, page_bytes)
        if not page:
            return
        yield from page
        from_slot = page[-1].slot + 1
