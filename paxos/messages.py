"""The messages between replicas.

Phase 1 runs once for each new leader and covers every slot from the first one that the leader does not know to be
chosen:

    candidate               acceptors
        | PreVote              |      would you promise? (changes nothing, deposes nobody)
        |--------------------->|
        |         PreVoteReply |
        |<---------------------|
        | Prepare(b, from)     |
        |--------------------->|      promise ballot b and make that durable
        |    Promise(b, pages) |      with all values accepted in these slots
        |<---------------------|

In the steady state only phase 2 runs, for several slots at a time:

      leader                acceptors
        | Accept(b, s, v)      |
        |--------------------->|      accept value v for slot s and make that durable
        |       Accepted(b, s) |
        |<---------------------|
        |  a majority: chosen  |
        | Chosen(b, up to s)   |      or the same announcement on the next Accept or Heartbeat
        |--------------------->|

Leases are renewed once per heartbeat interval, and at once when a read needs a majority:

      leader                acceptors
        | Heartbeat(b, nonce)  |
        |--------------------->|      grant: refuse other candidates for one lease from now on
        | HeartbeatAck(nonce)  |
        |<---------------------|

A replica that lacks chosen slots sends Fetch to any peer and gets Learn. If the peer has truncated these slots from its
log, the replica fetches a snapshot of the peer's state instead, page by page:

      replica                       any peer
        | Fetch(from s)               |
        |---------------------------->|
        | Learn((), truncated >= s)   |
        |<----------------------------|
        | FetchSnapshot(after p)      |
        |---------------------------->|      read the rows of the state after position p
        | SnapshotPage(p, rows)       |
        |<----------------------------|
        | once these rows are stored: |
        | FetchSnapshot(after q)      |
        |---------------------------->|
        | SnapshotPage(q, rows, end)  |      the last page: the state as of a slot, after which the log continues
        |<----------------------------|

A replica that does not lead forwards commands to the leader with Propose and asks for read indexes with ReadIndex. An
acceptor answers Reject if a higher promise or a lease grant forbids the request.

Every message may be lost, duplicated, delayed and reordered, and may be sent again without harm. The sender is not a
field: it is the peer that the connection has authenticated (rule 9).
"""

from typing import Annotated

import msgspec

from paxos.types import Ballot, Count, NodeId, Position, PValue, Slot


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages. On the wire a message is an array that begins with its tag.

    A class that is renamed keeps its tag, because replicas of two releases exchange messages of one version.
    """


class PreVote(Message, frozen=True, tag="Canvass"):
    """Candidate to all: asks whether the receiver would promise now, for every slot from `from_slot` on.

    It precedes Prepare, so that a node that cannot win disturbs nobody (rule 13). The receiver answers PreVoteReply and
    changes nothing.
    """

    nonce: Count
    from_slot: Slot


class PreVoteReply(Message, frozen=True, tag="CanvassReply"):
    """Acceptor to candidate, in answer to PreVote.

    `willing` is True if the sender of the PreVote may be a candidate, neither a grant to another node nor the wait
    after a restart forbids a promise, and the acceptor has the slots in memory. `promised` and `chosen` are its promise
    and its chosen prefix: the candidate uses a ballot above `promised` and fetches the slots up to `chosen`.
    """

    nonce: Count
    willing: bool
    promised: Ballot
    chosen: Slot


class Prepare(Message, frozen=True):
    """Phase 1a, candidate to acceptors: asks for a promise of `ballot` for every slot from `from_slot` on, or for the
    next page of a promise that did not fit one message. It leaves once the candidate's round is durable (rule 2).
    """

    ballot: Ballot
    from_slot: Slot


class Promise(Message, frozen=True):
    """Phase 1b, acceptor to candidate, once the promise is durable (rule 1).

    `accepted` holds the values accepted from `from_slot` up to, not including, `next_slot`. On the last page
    `next_slot` is 0.
    """

    ballot: Ballot
    from_slot: Slot
    accepted: tuple[PValue, ...]
    next_slot: Slot


class Accept(Message, frozen=True):
    """Phase 2a, leader to acceptors: asks to accept `value` for `slot`. `chosen` is the leader's chosen prefix, as in
    Chosen."""

    ballot: Ballot
    slot: Slot
    value: bytes
    chosen: Slot


class Accepted(Message, frozen=True):
    """Phase 2b, acceptor to leader, once the accepted value is durable (rule 1). There is one for each Accept."""

    ballot: Ballot
    slot: Slot


class Chosen(Message, frozen=True):
    """Leader to all: every slot up to `upto` is chosen.

    A replica that accepted a slot under this ballot holds the chosen value. Any other replica must fetch the slot
    (rule 12).
    """

    ballot: Ballot
    upto: Slot


class Reject(Message, frozen=True):
    """Acceptor to a candidate or leader: refuses a request under `ballot`.

    If `promised` is above `ballot`, the ballot is preempted. Otherwise, if `floor` is set, the acceptor no longer has
    all requested slots in memory, and the candidate must first fetch the slots up to `floor` - 1 (rule 11). Otherwise a
    grant or the wait after a restart forbids a promise for now.
    """

    ballot: Ballot
    promised: Ballot
    floor: Slot


class Heartbeat(Message, frozen=True):
    """Leader to all: asks to renew the lease of `ballot`. Each round of heartbeats has a fresh `nonce` (rule 16)."""

    ballot: Ballot
    nonce: Count
    chosen: Slot


class HeartbeatAck(Message, frozen=True):
    """Acceptor to leader, in answer to Heartbeat: the acceptor has promised no ballot above `ballot`.

    If `granted`, the acceptor also refuses other candidates for one lease. `chosen` is its chosen prefix, and `votes`
    its votes for this ballot, encoded as in ForgottenVotes.
    """

    ballot: Ballot
    nonce: Count
    granted: bool
    chosen: Slot
    votes: Count


class ForgottenVotes(Message, frozen=True, tag="Forgotten"):
    """Leader to acceptor: before a heartbeat left, the leader had counted `votes` for `ballot`, and the answer reported
    fewer.

    The number 0 means no vote, 1 a promise, and 1 + s the promise and an accepted value for slot s. A receiver that
    indeed has fewer votes has lost part of its storage, and must not vote with the rest (rule 5).
    """

    ballot: Ballot
    votes: Count


class ReleaseLease(Message, frozen=True, tag="Release"):
    """Leader to all: the sender stops leading under `ballot`, and every grant to it ends.

    The replica named `successor` becomes a candidate at once; "" names none.
    """

    ballot: Ballot
    successor: NodeId


class Fetch(Message, frozen=True):
    """Any replica to any: asks for chosen slots from `from_slot` on. A receiver that knows of any answers Learn."""

    from_slot: Slot


class Learn(Message, frozen=True):
    """Answer to Fetch: chosen slots in order and without a gap, as many as fit one page.

    `chosen` is the sender's chosen prefix. The sender's log is truncated up to slot `truncated`; if that includes the
    requested slot, `entries` is empty and the receiver needs a snapshot.
    """

    entries: tuple[PValue, ...]
    chosen: Slot
    truncated: Slot


class FetchSnapshot(Message, frozen=True, tag="FetchState"):
    """Any replica to any: asks for the rows of the receiver's state after position `after`. The receiver answers
    SnapshotPage."""

    after: Position


class SnapshotPage(Message, frozen=True, tag="State"):
    """One page of the sender's state, from host to host; the core ignores it.

    `rows` are packed rows after position `after`, and `checksum` is their CRC-32. Rows that were superseded up to
    position `compacted` are left out. On the last page `end` is the packed progress of the whole state; on the other
    pages it is empty.
    """

    after: Position
    rows: bytes
    compacted: Position
    end: bytes
    checksum: Count


Digest = Annotated[bytes, msgspec.Meta(max_length=64)]


class DigestRequest(Message, frozen=True, tag="Compare"):
    """Leader to all, from host to host: the digest of the leader's state as of `slot`.

    A receiver that knows its own digest as of this slot answers DigestReply.
    """

    slot: Slot
    digest: Digest


class DigestReply(Message, frozen=True, tag="Compared"):
    """Replica to leader, from host to host: the digest of the sender's state as of `slot`."""

    slot: Slot
    digest: Digest


class DigestMismatch(Message, frozen=True, tag="Diverged"):
    """Leader to a replica, from host to host: a majority has this digest as of `slot`.

    The state of a receiver with another digest does not follow from the log, so its process ends (rule 24).
    """

    slot: Slot
    digest: Digest


class FoundingState(Message, frozen=True, tag="Founding"):
    """Any replica to any, from host to host: the progress of the founding of the cluster (rule 30).

    A replica without a membership sends the `incarnation` of its data. Once it has agreed to a founding, it also sends
    the `members` that take part, each with its incarnation, and the `absent` ones. A replica that knows the membership
    answers with `founded`, and with the members if it founded the cluster with them. `restored` is the mark of the
    restored state with which the data of the sender begins, empty for new data.
    """

    incarnation: Count
    members: tuple[tuple[NodeId, Count], ...]
    absent: tuple[NodeId, ...]
    founded: bool
    restored: Annotated[str, msgspec.Meta(max_length=100)]


class Propose(Message, frozen=True):
    """Replica to leader: asks to order these payloads. There is no answer: the sender sees the payloads applied, or
    sends them again."""

    payloads: tuple[bytes, ...]


class ReadIndex(Message, frozen=True):
    """Replica to leader: asks for a read index, the slot to apply before a linearizable read. If `quorum`, the leader
    must not trust its lease."""

    token: Count
    quorum: bool


class ReadIndexReply(Message, frozen=True):
    """Leader to replica, in answer to ReadIndex: the read may be answered once `slot` is applied."""

    token: Count
    slot: Slot


AnyMessage = (
    PreVote
    | PreVoteReply
    | Prepare
    | Promise
    | Accept
    | Accepted
    | Chosen
    | Reject
    | Heartbeat
    | HeartbeatAck
    | ForgottenVotes
    | ReleaseLease
    | Fetch
    | Learn
    | FetchSnapshot
    | SnapshotPage
    | DigestRequest
    | DigestReply
    | DigestMismatch
    | FoundingState
    | Propose
    | ReadIndex
    | ReadIndexReply
)
"""Any message. `Replica.receive` matches on it, and the type checker verifies that no message is left out."""
