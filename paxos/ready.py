"""The work that one step of the core hands to its host, and the order of that work.

The core changes only its own memory. All other work is in a Ready, whose fields are in the order in which the host must
do the work: send messages, start the write, apply values, answer reads, serve fetches. Only the votes of a write wait:
they leave after the write is durable.
"""

import msgspec

from paxos.messages import AnyMessage
from paxos.types import Ballot, NodeId, PValue, Slot


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A message and its receiver. If `to` is the replica itself, the host passes the message to `Replica.receive`."""

    to: NodeId
    message: AnyMessage


class Write(msgspec.Struct):
    """Records to store in one transaction, and the votes that leave once it is durable (rules 1, 2, 3 and 8).

    Writes become durable in the order in which they were made; several may share a transaction. A Write without records
    still waits for all earlier Writes, because its votes depend on their records.
    """

    promise: Ballot | None = None
    """The new promise, None if it has not changed."""
    accepts: list[PValue] = []
    """Accepted values. A later value of a slot replaces an earlier one."""
    chosen: Slot | None = None
    """The new chosen prefix, None if it has not changed."""
    votes: list[Envelope] = []


class ReadReady(msgspec.Struct, frozen=True, gc=False):
    """A confirmed read: reads of `token` may be answered from any state that has applied `slot`.

    `confirmed_by` says how the leader was confirmed. On the leader it is "lease" or "quorum". On another replica it is
    "quorum" if the read demanded a quorum, otherwise "read_index".
    """

    token: int
    slot: Slot
    confirmed_by: str


class ServeFetch(msgspec.Struct, frozen=True, gc=False):
    """A request to read one page of the chosen slots `from_slot` .. `upto` from storage and send it to `to` as Learn.

    The host reads only after all earlier writes are durable: before that, storage may hold a value other than the
    chosen one.
    """

    to: NodeId
    from_slot: Slot
    upto: Slot


class ServeSnapshot(msgspec.Struct, frozen=True, gc=False):
    """A request to read one page of the stored state and send it to `to` as SnapshotPage.

    The page holds rows after position `after`, of about `max_bytes`. The host makes this request, never the core.
    """

    to: NodeId
    after: int
    max_bytes: int


class Ready(msgspec.Struct):
    """The work of one step, with its fields in the order in which the host must do the work.

    `kvstore.replica.node.Node.step` takes a Ready from the core, applies `chosen`, answers `reads`, and returns a Ready
    for its driver. In that Ready, `write` also holds records of the state, and `chosen` and `reads` are already done.
    """

    messages: list[Envelope] = []
    """Messages to send at once. They carry no vote and depend on no record that is not yet durable."""

    write: Write | None = None
    """Records to store. Their votes leave when they are durable."""

    chosen: list[tuple[Slot, bytes]] = []
    """Chosen slots and their values, to apply in this order. A chosen value need not wait for the disk of this replica:
    a majority has stored it."""

    reads: list[ReadReady] = []
    """Reads that may be answered once `chosen` is applied."""

    fetches: list[ServeFetch | ServeSnapshot] = []
    """Requests of peers, to be answered from storage."""
