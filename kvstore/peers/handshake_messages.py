"""The messages of the handshake, and the reasons to refuse a link. See `kvstore.peers.handshake`."""

from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from paxos import wire
from paxos.types import NodeId

NONCE_BYTES = 32
MAX_HANDSHAKE_BYTES = 1024
"""Limit of a frame during the handshake, before the other end has proved its identity."""

MAX_CLUSTER_CHARS = 128
MAX_COMPATIBILITY_CHARS = 256
MAX_REASON_CHARS = 240
"""Limit of the text of a refusal: 4 bytes for each character fit into MAX_HANDSHAKE_BYTES."""

_Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Boot = Annotated[int, msgspec.Meta(ge=1)]


class Channel(StrEnum):
    """The purpose of a link. Each channel has its own connection, so that a long page never delays a vote."""

    MESSAGES = "messages"
    BULK = "bulk"
    """Pages of the log and of snapshots."""


class Start(NamedTuple):
    """One start on some data. `boot` counts the starts on the data, and `life` is the random number of the start. Both
    are stored with the data before the first handshake. Boot 0 stands for no start."""

    boot: _Count
    life: _Count


NO_START = Start(0, 0)


class ProcessIdentity(NamedTuple):
    """One process of one replica. `incarnation` identifies its data. `boot` and `life` are those of its Start."""

    incarnation: int
    boot: int
    life: int

    @property
    def start(self) -> Start:
        """The start of the process."""
        return Start(self.boot, self.life)


class LinkRefusal(StrEnum):
    """The reason why a link was refused."""

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
    """Reason of a later release, unknown to this release."""

    @classmethod
    def _missing_(cls, value: object) -> "LinkRefusal":  # noqa: ARG003 - the enum's interface
        return cls.OTHER


class LinkRefused(Exception):
    """Error that ends a link. Unless the peer refused the link (`by_peer`), this end sends `refusal` before closing."""

    def __init__(self, reason: LinkRefusal, text: str, *, by_peer: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.by_peer = by_peer


class _Handshake(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base class of the messages. Fields that a later release appends are ignored."""


class Hello(_Handshake, frozen=True):
    """First message, from the dialer to the listener.

    `lowest` and `version` bound the message versions that the dialer can send. `compatibility` holds the settings that
    must be equal on all replicas (see `kvstore.peers.compatibility`). `replaces` is the incarnation of the dialer's
    former, damaged data, by which the dialer asks to be admitted with its new incarnation; 0 for no request.
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
        """The identity that the dialer claims, and proves with Proof."""
        return ProcessIdentity(self.incarnation, self.boot, self.life)


class AnyHello(_Handshake, frozen=True, tag="Hello"):
    """The first fields of Hello, the same in all releases, so that the version of any release can be reported."""

    version: _Count
    cluster: str
    node: NodeId


class Challenge(_Handshake, frozen=True):
    """Second message, from the listener: its identity, the message version to use, the proof that it knows the secret,
    and the newest start that it has seen of the dialer's data."""

    node: NodeId
    incarnation: _Count
    nonce: _Nonce
    proof: _Digest
    boot: _Boot
    life: _Count
    version: _Count = 0
    seen: Start = NO_START

    @property
    def identity(self) -> ProcessIdentity:
        """The identity that the listener proves with `proof`."""
        return ProcessIdentity(self.incarnation, self.boot, self.life)


class Proof(_Handshake, frozen=True):
    """Third message, from the dialer: the proof that it knows the secret, and the newest start that it has seen of the
    listener's data."""

    proof: _Digest
    seen: Start = NO_START


class Welcome(_Handshake, frozen=True):
    """Last message, from the listener: the dialer may send messages."""


class Refusal(_Handshake, frozen=True):
    """Message of either end that ends the link: the reason, and the advice for the operator."""

    reason: LinkRefusal
    text: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]


encode = msgspec.msgpack.Encoder().encode
any_hello_decoder = msgspec.msgpack.Decoder(AnyHello)
_decoder = msgspec.msgpack.Decoder(Hello | Challenge | Proof | Welcome | Refusal)


def refusal(refused: LinkRefused) -> bytes:
    """Return the payload that tells the other end why this end refuses the link."""
    return encode(Refusal(refused.reason, refused.text[:MAX_REASON_CHARS]))


def decode(payload: bytes) -> Hello | Challenge | Proof | Welcome:
    """Return the message in `payload`. Raises LinkRefused for a Refusal and for an invalid payload."""
    try:
        message: Hello | Challenge | Proof | Welcome | Refusal = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkRefused(LinkRefusal.GARBAGE, f"not a handshake ({error}): only replicas may connect here") from error
    if isinstance(message, Refusal):
        printable = "".join(char if char.isprintable() else "?" for char in message.text)  # the text is logged
        raise LinkRefused(message.reason, printable, by_peer=True)
    return message
