"""The messages of the handshake, and the reasons for which a link is refused. See `kvstore.peers.handshake`."""

from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from paxos import wire
from paxos.types import NodeId

NONCE_BYTES = 32
MAX_HANDSHAKE_BYTES = 1024
"""Longest frame on a link whose other end has not proved its identity."""

LIFE_BITS = 62
"""Random bits that distinguish two processes, drawn when a process starts."""

MAX_CLUSTER_CHARS = 128
MAX_COMPATIBILITY_CHARS = 256
MAX_REASON_CHARS = 240
"""Longest text of a refusal: at 4 bytes a character it fits into MAX_HANDSHAKE_BYTES."""

_Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Boot = Annotated[int, msgspec.Meta(ge=1)]


class Channel(StrEnum):
    """The purpose of a link. Each purpose has a connection of its own, so that a long page never delays a vote."""

    MESSAGES = "messages"
    BULK = "bulk"
    """Pages of the log and of snapshots."""


class ProcessIdentity(NamedTuple):
    """One process of one replica: the `incarnation` of its data, the number of starts on that data (from 1, this start
    included, durable), and the random LIFE_BITS of the process."""

    incarnation: int
    boot: int
    life: int


class LinkRefusal(StrEnum):
    """The reason for which a link was refused; also the label of the metric that counts refusals."""

    VERSION = "version"
    CLUSTER = "wrong-cluster"
    UNKNOWN_NODE = "unknown-node"
    OWN_ID = "own-id"
    COMPATIBILITY = "other-settings"
    WRONG_NODE = "wrong-node"
    PROOF = "wrong-secret"
    INCARNATION = "other-incarnation"
    OLDER_COPY = "older-copy"
    USED_TWICE = "used-twice"
    TOO_LONG = "frame-too-long"
    GARBAGE = "garbage"
    TIMEOUT = "handshake-timeout"
    BUSY = "too-many-connections"
    OTHER = "other"
    """A reason of a later release that this release has no name for."""

    @classmethod
    def _missing_(cls, value: object) -> "LinkRefusal":  # noqa: ARG003 - the enum's interface
        return cls.OTHER


class LinkRefused(Exception):
    """The link must end. With `by_peer` the other end refused the link; otherwise send `refusal` before closing."""

    def __init__(self, reason: LinkRefusal, text: str, *, by_peer: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.by_peer = by_peer


class _Handshake(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the messages. Fields that a later version appends are skipped, so that its version can be reported."""


class Hello(_Handshake, frozen=True):
    """Dialer to listener, first.

    `lowest` to `version` are the message versions that the dialer can send. `compatibility` holds the settings that
    must be equal everywhere (see `kvstore.peers.compatibility`). `replaces` is the incarnation of the dialer's former
    data, which was damaged: the dialer asks to be admitted with its new incarnation; 0 for no request.
    """

    version: Annotated[int, msgspec.Meta(ge=0)]
    cluster: Annotated[str, msgspec.Meta(max_length=MAX_CLUSTER_CHARS)]
    node: NodeId
    incarnation: _Count
    nonce: _Nonce
    compatibility: Annotated[str, msgspec.Meta(max_length=MAX_COMPATIBILITY_CHARS)]
    boot: _Boot
    life: _Count
    channel: Channel
    replaces: _Count = 0
    lowest: _Count = 0

    @property
    def versions(self) -> wire.Versions:
        """The message versions that the dialer can send."""
        return wire.Versions(self.lowest or self.version, self.version)

    @property
    def identity(self) -> ProcessIdentity:
        """The identity that the dialer has to prove."""
        return ProcessIdentity(self.incarnation, self.boot, self.life)


class AnyHello(_Handshake, frozen=True, tag="Hello"):
    """The first fields of the Hello of every release. They never change, so that its version can be reported."""

    version: _Count
    cluster: str
    node: NodeId


class Challenge(_Handshake, frozen=True):
    """Listener to dialer: the listener's identity, the message version to use, and the proof that the listener knows
    the secret."""

    node: NodeId
    incarnation: _Count
    nonce: _Nonce
    proof: _Digest
    boot: _Boot
    life: _Count
    version: _Count = 0

    @property
    def identity(self) -> ProcessIdentity:
        """The identity that `proof` proves."""
        return ProcessIdentity(self.incarnation, self.boot, self.life)


class Proof(_Handshake, frozen=True):
    """Dialer to listener: the proof that the dialer knows the secret."""

    proof: _Digest


class Welcome(_Handshake, frozen=True):
    """Listener to dialer: messages may follow."""


class Refusal(_Handshake, frozen=True):
    """Either side, at any time, last: the reason for which the link ends and how to mend it."""

    reason: LinkRefusal
    text: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]


encode = msgspec.msgpack.Encoder().encode
any_hello_decoder = msgspec.msgpack.Decoder(AnyHello)
_decoder = msgspec.msgpack.Decoder(Hello | Challenge | Proof | Welcome | Refusal)


def refusal(refused: LinkRefused) -> bytes:
    """Return the payload that tells the other end why the link ends."""
    return encode(Refusal(refused.reason, refused.text[:MAX_REASON_CHARS]))


def decode(payload: bytes) -> Hello | Challenge | Proof | Welcome:
    """Return the message in `payload`. Raises LinkRefused for a Refusal and for bytes that are no message."""
    try:
        message: Hello | Challenge | Proof | Welcome | Refusal = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkRefused(LinkRefusal.GARBAGE, f"not a handshake ({error}): only replicas may connect here") from error
    if isinstance(message, Refusal):
        printable = "".join(char if char.isprintable() else "?" for char in message.text)  # the text is logged
        raise LinkRefused(message.reason, printable, by_peer=True)
    return message
