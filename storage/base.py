"""The contract between a replica and its storage."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from paxos.ready import Write
from paxos.types import ZERO, Ballot, NodeId, PValue, Slot


class StorageError(Exception):
    """Storage cannot be used. The message says what is wrong with it and what to do next."""


class Identity(msgspec.Struct, frozen=True):
    """Whose data this is (rule 28). `incarnation` is drawn once, when the storage is created; `boot` counts its
    openings from 1 and is durable before opening returns: (node, incarnation, boot) names one life of one process."""

    cluster: str
    node: NodeId
    incarnation: int
    boot: int


class Recovered(msgspec.Struct):
    """What was durable when the storage was opened."""

    identity: Identity
    promised: Ballot = ZERO
    chosen: Slot = 0
    """Every slot up to here is known to be chosen and present in the log with its chosen value."""
    last: Slot = 0
    """Highest slot with an accepted value, 0 when there is none."""


class Storage(Protocol):
    """One replica's durable state. All methods block; the host calls them from one thread, one after the other.

    Any StorageError or OSError after opening ends the process: after a failed fsync nothing can be trusted (rule 4).
    """

    def recovered(self) -> Recovered:
        """What was durable at opening."""

    def read(self, from_slot: Slot, upto: Slot, max_bytes: int) -> list[PValue]:
        """Accepted entries of `from_slot` .. `upto` in slot order, at least one where there is one, then only as many
        as keep the sum of the values within `max_bytes`. Raises StorageError on damage (rule 5): a row that is not what
        was written, or an absent one of the chosen prefix."""

    def write(self, writes: list[Write]) -> None:
        """Store the records of all `writes` in order, as one transaction, durable on return: all or nothing.

        A later accept of a slot replaces the earlier; `promise` and `chosen` never go down, and `chosen` never passes
        the end of the log: StorageError, and nothing of `writes` is stored. Writes without records touch no disk."""

    def close(self) -> None:
        """Release the file. Everything written stays."""


class Marks(NamedTuple):
    """What a storage keeps beside the entries, and the rule for how it may move."""

    promised: Ballot = ZERO
    chosen: Slot = 0
    last: Slot = 0

    def after(self, writes: Sequence[Write]) -> "Marks":
        """The marks once `writes` are stored. Raises StorageError when they break the contract."""
        promised, chosen, last = self
        for write in writes:
            if write.promise is not None:
                if write.promise < promised:
                    raise _misuse(f"the promise would go down from {promised} to {write.promise}")
                promised = write.promise
            for entry in write.accepts:
                last = max(last, entry.slot)
            if write.chosen is not None:
                if write.chosen < chosen:
                    raise _misuse(f"the chosen prefix would go down from {chosen} to {write.chosen}")
                if write.chosen > last:
                    raise _misuse(f"the chosen prefix {write.chosen} would pass the end of the log, {last}")
                chosen = write.chosen
        return Marks(promised, chosen, last)


def _misuse(what: str) -> StorageError:
    return StorageError(
        f"{what}: the write was refused and nothing of it was stored. "
        "This is a bug of the replica, not of the disk: start it again, and report this line"
    )


def has_records(write: Write) -> bool:
    """True when there is something to store; votes alone only wait for what was handed over before them."""
    return write.promise is not None or bool(write.accepts) or write.chosen is not None


def scan(storage: Storage, from_slot: Slot, upto: Slot, page_bytes: int = 1 << 20) -> Iterator[PValue]:
    """Every accepted entry of `from_slot` .. `upto`, page by page, so that a long log needs little memory."""
    while from_slot <= upto:
        page = storage.read(from_slot, upto, page_bytes)
        if not page:
            return
        yield from page
        from_slot = page[-1].slot + 1
