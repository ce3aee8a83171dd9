"""The words of the protocol: who takes part, what is ordered, and under which number.

Sources: Lamport, "Paxos Made Simple" (2001), section 2; Lamport, "The Part-Time Parliament" (1998), section 3 for the
multi-decree form; van Renesse and Altinbuken, "Paxos Made Moderately Complex" (2015) for ballots as pairs and slots.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, NamedTuple

import msgspec

NodeId = Annotated[str, msgspec.Meta(min_length=0, max_length=32)]
"""Name of a member, `n1`; at most 32 characters. Names are compared, so all members must spell them alike."""

Slot = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""Position in the replicated log, from 1. As a prefix, 0 means "nothing yet"."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A nonce, a token or a sequence number."""

Time = int
"""A reading of the local monotonic clock in nanoseconds. Readings of two machines are never compared."""

MS = 1_000_000
"""Nanoseconds in a millisecond."""


class Ballot(NamedTuple):
    """Number of an attempt to lead: totally ordered, and unique because it ends in the name of who made it (rule 7)."""

    round: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    node: NodeId

    def __str__(self) -> str:
        return f"{self.round}.{self.node}"


ZERO = Ballot(0, "")
"""Below every ballot that anybody can use."""

NOOP = b""
"""The value that fills a gap: it is chosen like any other and changes nothing when applied."""


class PValue(NamedTuple):
    """A slot, and the value that was accepted for it under a ballot: the unit of log, promise and catch-up."""

    slot: Slot
    ballot: Ballot
    value: bytes


class Configuration(msgspec.Struct, frozen=True):
    """Who takes part, and how (rule 29). Order carries no meaning; names are unique.

    `voters` are the acceptors that count. `witnesses` are those of them that only accept: they never lead and keep no
    state. `learners` learn, and their votes do not count. `unverified` are learners that may have been given a new disk
    since they voted: they count in the size of the configurations before, and are not heard (rule 28).
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    witnesses: tuple[NodeId, ...] = ()
    unverified: tuple[NodeId, ...] = ()

    @property
    def members(self) -> tuple[NodeId, ...]:
        """All of them."""
        return self.voters + self.learners


_payloads_encoder = msgspec.msgpack.Encoder()
_payloads_decoder = msgspec.msgpack.Decoder(list[bytes])


def pack(payloads: Sequence[bytes]) -> bytes:
    """One value for one slot out of the payloads that shall be ordered in it, in this order."""
    return _payloads_encoder.encode(payloads) if payloads else NOOP


def unpack(value: bytes) -> Collection[bytes]:
    """The payloads of a value that `pack` made.

    Raises msgspec.DecodeError when the bytes are of another origin.
    """
    return _payloads_decoder.decode(value) if value else ()
