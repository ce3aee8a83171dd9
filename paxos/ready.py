"""What one step of the core asks of its host, and the order in which the host must do it.

The core changes only its own memory. Whatever has to happen outside it is on a Ready, and its fields stand in the order
of the work: send, then start the write, then apply, then answer reads, then serve fetches. Only one thing waits for
another: the votes of a write leave after the write is durable.
"""

import msgspec

from paxos.messages import AnyMessage
from paxos.types import Ballot, NodeId, PValue, Slot


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A message and where it goes. `to` may be the replica itself: hand it back to `receive`."""

    to: NodeId
    message: AnyMessage


class Write(msgspec.Struct):
    """What must be in storage, as one transaction, before `votes` may leave (rules 1, 2, 3 and 8).

    Writes become durable in the order in which they were made; several may share a transaction. A Write without records
    still waits for all before it: its votes rest on them.
    """

    promise: Ballot | None = None
    accepts: list[PValue] = []
    chosen: Slot | None = None
    votes: list[Envelope] = []


class ReadReady(msgspec.Struct, frozen=True, gc=False):
    """The reads under `token` may be answered from any state that has applied `slot`. `way`: how that was confirmed."""

    token: int
    slot: Slot
    confirmed_by: str


class ServeFetch(msgspec.Struct, frozen=True, gc=False):
    """Read the chosen slots `from_slot` .. `upto` from storage, a page of them, and send them to `to` as Learn. The
    read comes after every write handed over before it is durable: earlier, storage may hold another value than the
    chosen."""

    to: NodeId
    from_slot: Slot
    upto: Slot


class ServeSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Read a page of the stored state, the rows behind revision `after`, of about `max_bytes`, and send it to `to` as
    SnapshotPage. The core never asks for this, its host does."""

    to: NodeId
    after: int
    max_bytes: int


class Ready(msgspec.Struct):
    """The work of one step, in the order in which the host must do it."""

    messages: list[Envelope] = []
    """Send at once. They carry no vote and rest on nothing that is not durable."""

    write: Write | None = None
    """Start to store; when durable, send its votes."""

    chosen: list[tuple[Slot, bytes]] = []
    """Apply in this order. Chosen is a fact about a majority, it need not wait for the own disk."""

    reads: list[ReadReady] = []
    """Reads that may be answered once `chosen` is applied."""

    fetches: list[ServeFetch | ServeSnapshot] = []
    """Requests of peers that are answered from storage."""
