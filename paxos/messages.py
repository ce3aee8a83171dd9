"""Everything that replicas say to each other.

Phase 1, once for a new leader, over every slot from the first that it does not know to be chosen:

    candidate               acceptors
        | PreVote              |      would you promise?        (nothing changes, nobody is deposed)
        |--------------------->|
        |         PreVoteReply |
        |<---------------------|
        | Prepare(b, from)     |
        |--------------------->|      promise b, make it durable
        |    Promise(b, pages) |      with all that was accepted from there on
        |<---------------------|

Phase 2, alone in the steady state, several slots at a time:

      leader                acceptors
        | Accept(b, s, v)      |
        |--------------------->|      accept, make it durable
        |       Accepted(b, s) |
        |<---------------------|
        |  a majority: chosen  |
        | Chosen(b, up to s)   |      or the same news on the next Accept or Heartbeat
        |--------------------->|

Leases, every heartbeat interval, and at once when a read wants a quorum:

      leader                acceptors
        | Heartbeat(b, nonce)  |
        |--------------------->|      grant: refuse other candidates for a lease from now on
        | HeartbeatAck(nonce)  |
        |<---------------------|

A replica that lacks chosen slots asks anybody with Fetch and gets Learn. Where those slots are cut from the log it
asks, page by page, for the state that they led to:

      replica                 any peer
        | Fetch(from s)        |
        |--------------------->|
        |   Learn((), cut > s) |
        |<---------------------|
        | FetchSnapshot(after r)  |      the rows of the state behind revision r
        |--------------------->|
        |      SnapshotPage(r, rows)  |
        |<---------------------|
        |  stored: the next    |
        | FetchSnapshot(after r') |
        |--------------------->|
        |  SnapshotPage(r', rows, end)|      these were the last: the state as of a slot, and the log goes on from there
        |<---------------------|

One that does not lead hands commands to the leader with Propose and asks for read indices with ReadIndex. Reject
answers what a higher promise or a grant forbids.

Every message may be lost, copied, delayed and reordered; each may be repeated by its sender without harm. The sender is
not a field: it is what the link proved (rule 9).
"""

from typing import Annotated

import msgspec

from paxos.types import Ballot, Count, NodeId, PValue, Slot


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages. On the wire each is an array that begins with its name."""


class PreVote(Message, frozen=True):
    """Candidate to all: would you promise to me now, for every slot from `from_slot` on? Sent before a Prepare, so that
    a node that cannot win disturbs nobody (rule 13). The receiver answers with PreVoteReply and changes nothing."""

    nonce: Count
    from_slot: Slot


class PreVoteReply(Message, frozen=True):
    """Acceptor to candidate. `willing`: no grant to another and no wait after a restart stands against a promise,
    and the slots asked for are at hand. `promised` and `chosen` are the acceptor's promise and chosen prefix: the
    candidate numbers its ballot above the one and fetches up to the other."""

    nonce: Count
    willing: bool
    promised: Ballot
    chosen: Slot


class Prepare(Message, frozen=True):
    """Phase 1a, candidate to acceptors: promise `ballot` for every slot from `from_slot` on. Also asks for the next
    page of an answer that did not fit one message. Leaves once the candidate's round is durable (rule 2)."""

    ballot: Ballot
    from_slot: Slot


class Promise(Message, frozen=True):
    """Phase 1b, acceptor to candidate, after the promise is durable (rule 1). `accepted` holds what it accepted from
    `from_slot` up to, not including, `next_slot`; `next_slot` 0 means that nothing follows."""

    ballot: Ballot
    from_slot: Slot
    accepted: tuple[PValue, ...]
    next_slot: Slot


class Accept(Message, frozen=True):
    """Phase 2a, leader to acceptors: accept `value` for `slot`. `chosen`: the leader's chosen prefix, see Chosen."""

    ballot: Ballot
    slot: Slot
    value: bytes
    chosen: Slot


class Accepted(Message, frozen=True):
    """Phase 2b, acceptor to leader, after what it accepted is durable (rule 1). One message for each Accept."""

    ballot: Ballot
    slot: Slot


class Chosen(Message, frozen=True):
    """Leader to all: every slot up to `upto` is chosen. Whoever accepted a slot under this very ballot holds the chosen
    value of it; whoever did not must Fetch it (rule 12)."""

    ballot: Ballot
    upto: Slot


class Reject(Message, frozen=True):
    """Acceptor to whoever asked under `ballot`: no. `promised` above `ballot`: outbid. Otherwise a grant or the wait
    after a restart forbids it for now. `floor` above the asked slot: the acceptor no longer has those slots at hand,
    fetch what is chosen up to `floor` - 1 first (rule 11)."""

    ballot: Ballot
    promised: Ballot
    floor: Slot


class Heartbeat(Message, frozen=True):
    """Leader to all: I lead `ballot`, renew my lease. `nonce` is fresh for each round of heartbeats (rule 16)."""

    ballot: Ballot
    nonce: Count
    chosen: Slot


class HeartbeatAck(Message, frozen=True):
    """Acceptor to leader: my promise is not above `ballot`; `granted`: and I refuse other candidates for one lease.
    `votes` says what I know of my votes for this ballot, see ForgottenVotes."""

    ballot: Ballot
    nonce: Count
    granted: bool
    chosen: Slot
    votes: Count


class ForgottenVotes(Message, frozen=True):
    """Leader to acceptor: before I sent a heartbeat I had counted `votes` of yours for `ballot`, and you know of less.

    0 is no vote, 1 a promise, and 1 + s the promise and slot s accepted. Whoever finds this true of itself has lost
    part of its storage without noticing, and must not vote with what is left (rule 5)."""

    ballot: Ballot
    votes: Count


class ReleaseLease(Message, frozen=True):
    """Leader to all: I stop leading `ballot`, my grants end, and `successor` should run at once ("" for anybody)."""

    ballot: Ballot
    successor: NodeId


class Fetch(Message, frozen=True):
    """Any replica to any: send me chosen slots from `from_slot` on. Answered by Learn when there are any."""

    from_slot: Slot


class Learn(Message, frozen=True):
    """Chosen slots without a gap, in order; as many as fit a page. `chosen`: the sender's chosen prefix. `cut`: its log
    begins behind this slot. Where that is beyond the slot asked for there are no entries: fetch the state."""

    entries: tuple[PValue, ...]
    chosen: Slot
    truncated: Slot


class FetchSnapshot(Message, frozen=True):
    """Any replica to any: send me the rows of your state behind revision `after`. Answered by SnapshotPage."""

    after: Count


class SnapshotPage(Message, frozen=True):
    """A page of the sender's state machine, for the hosts of both: the core looks at nothing in it. `rows` are packed,
    `checksum` is over them; what was superseded up to revision `compacted` is not among them. `end` is empty but on the
    last page, where it says as of when the pages are the whole state."""

    after: Count
    rows: bytes
    compacted: Count
    end: bytes
    checksum: Count


Digest = Annotated[bytes, msgspec.Meta(max_length=64)]


class DigestRequest(Message, frozen=True):
    """Leader to all, for the hosts: my state as of `slot` has this digest. Whoever knows its own answers DigestReply."""

    slot: Slot
    digest: Digest


class DigestReply(Message, frozen=True):
    """A replica to the leader, for the hosts: my state as of `slot` has this digest."""

    slot: Slot
    digest: Digest


class DigestMismatch(Message, frozen=True):
    """Leader to a replica, for the hosts: a majority has this digest as of `slot`. Whoever has another holds a state
    that the log does not say, and ends (rule 24)."""

    slot: Slot
    digest: Digest


class Propose(Message, frozen=True):
    """A replica to the leader: order these payloads. No answer: the sender sees them applied, or repeats them."""

    payloads: tuple[bytes, ...]


class ReadIndex(Message, frozen=True):
    """A replica to the leader: how far must I have applied to read what is current? `quorum`: trust no lease."""

    token: Count
    quorum: bool


class ReadIndexReply(Message, frozen=True):
    """Leader to the replica: apply up to `slot` and read."""

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
    | Propose
    | ReadIndex
    | ReadIndexReply
)
"""All that can arrive. `Replica.receive` matches over it and the type checker sees that nothing is left out."""
