"""The types of the protocol: nodes, slots, ballots, values and configurations.

Sources: Lamport, "Paxos Made Simple" (2001), section 2; Lamport, "The Part-Time Parliament" (1998), section 3 for the
multi-decree form; van Renesse and Altinbuken, "Paxos Made Moderately Complex" (2015) for ballots as pairs and slots.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, NamedTuple

import msgspec

NodeId = Annotated[str, msgspec.Meta(min_length=0, max_length=32)]
"""Name of a member, such as `n1`, of at most 32 characters. Names are compared as strings, so every member must spell
a name in the same way."""

Slot = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""Position in the replicated log, counted from 1. Where a slot stands for a prefix of the log, 0 is the empty
prefix."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A nonce, a token or a sequence number."""

Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Position of a change in the state of the host, opaque to the protocol."""

Time = int
"""Time on the local monotonic clock in nanoseconds. Times of different machines are never compared."""

MS = 1_000_000
"""Nanoseconds in a millisecond."""


class Ballot(NamedTuple):
    """Number of one attempt to lead. Ballots are totally ordered, and two nodes never create the same one, because a
    ballot includes the name of its node (rule 7)."""

    round: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    node: NodeId

    def __str__(self) -> str:
        return f"{self.round}.{self.node}"


ZERO = Ballot(0, "")
"""The ballot below all others. No candidate uses it."""

NOOP = b""
"""The value that fills a gap. It is chosen like any other value and has no effect when applied."""


class PValue(NamedTuple):
    """A value accepted for a slot under a ballot: an entry of the log, of a Promise or of a Learn."""

    slot: Slot
    ballot: Ballot
    value: bytes


def lengthened(duration_ms: int, clock_drift_ppm: int) -> Time:
    """Return the time to wait so that `duration_ms` has passed on a clock that is slower by the drift bound, too."""
    return duration_ms * (1_000_000 + clock_drift_ppm) * MS // 1_000_000


class GrantTerms(NamedTuple):
    """The settings that decide how long an acceptor grants a leader lease (rule 15)."""

    lease_ms: int = 0
    clock_drift_ppm: int = 0

    @property
    def length(self) -> Time:
        """Length of a grant on the clock of the acceptor: lengthened by the drift bound."""
        return lengthened(self.lease_ms, self.clock_drift_ppm)

    def joined(self, other: "GrantTerms") -> "GrantTerms":
        """Return terms whose grants last at least as long as those of both: the longer lease, and the larger bound."""
        return GrantTerms(max(self.lease_ms, other.lease_ms), max(self.clock_drift_ppm, other.clock_drift_ppm))


class Configuration(msgspec.Struct, frozen=True):
    """The members and their roles (rule 29). The order of the names has no meaning; names are unique.

    `voters` are the acceptors whose votes count. `witnesses` are voters that only accept: they never lead and have no
    state. `learners` learn chosen values and have no vote. `unverified` are learners whose disk may have been replaced
    since they were voters: they still count in the size of earlier configurations, but their votes do not count (rule
    28).
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    witnesses: tuple[NodeId, ...] = ()
    unverified: tuple[NodeId, ...] = ()

    @property
    def members(self) -> tuple[NodeId, ...]:
        """All voters and learners."""
        return self.voters + self.learners


_payloads_encoder = msgspec.msgpack.Encoder()
_payloads_decoder = msgspec.msgpack.Decoder(list[bytes])


def pack(payloads: Sequence[bytes]) -> bytes:
    """Return the value of a slot that holds `payloads` in this order; NOOP if there are none."""
    return _payloads_encoder.encode(payloads) if payloads else NOOP


def unpack(value: bytes) -> Collection[bytes]:
    """Return the payloads of a value made by `pack`. Raises msgspec.DecodeError for any other bytes."""
    return _payloads_decoder.decode(value) if value else ()
