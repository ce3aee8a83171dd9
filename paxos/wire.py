"""Bytes <-> message: a version byte, then what the codec of that version makes of the message.

Each release speaks a range of versions, and every link the highest that both of its ends speak, so that replicas can be
replaced by those of the next release one after the other. The types in `paxos.messages` are those of VERSION. A release
that changes them raises VERSION, and keeps the codec before it until no replica of the cluster can need it:

    VERSION   msgpack, decoded into the declared types or not at all
    before    a codec of its own, which leaves out what is new, and fills in what is old

Whoever reads from a socket bounds the length first (`MAX_MESSAGE_BYTES`); here the content is validated: types, ranges,
lengths of names. A peer's bad bytes raise WireError and nothing else. Why: docs/decisions/0006-versions.md
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from paxos.errors import require
from paxos.messages import AnyMessage

VERSION = 2
"""1 was never released."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Longest message: a batch (1 MiB and the value that went over it) with room to spare."""


class WireError(ValueError):
    """Bytes from a peer that are not a message of a version that is spoken here."""


class Codec(NamedTuple):
    """One version. `encode` gives no bytes for a message that the version does not have: it is not sent, as if it were
    lost. `decode` raises msgspec.MsgspecError or UnicodeDecodeError."""

    encode: Callable[[AnyMessage], bytes]
    decode: Callable[[memoryview], AnyMessage]


_codecs: dict[int, Codec] = {
    VERSION: Codec(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(AnyMessage).decode)
}


class Versions(NamedTuple):
    """Those that a replica speaks: `lowest` to `highest`, all of them."""

    lowest: int
    highest: int

    def __str__(self) -> str:
        return f"version {self.highest}" if self.lowest == self.highest else f"versions {self.lowest} to {self.highest}"

    def common(self, other: "Versions") -> int | None:
        """The highest that both speak."""
        best = min(self.highest, other.highest)
        return best if best >= max(self.lowest, other.lowest) else None


def spoken() -> Versions:
    """The versions of this program."""
    return Versions(min(_codecs), max(_codecs))


def register(version: int, codec: Codec) -> None:
    """Speak one version more, next to those that are spoken. Before the first link is made."""
    lowest, highest = spoken()
    require(version in {lowest - 1, highest + 1}, "versions without a gap")
    _codecs[version] = codec


def encode(message: AnyMessage, version: int = VERSION) -> bytes:
    """Bytes of one message in a version that is spoken, without a length: framing belongs to the link. None at all when
    that version has no such message."""
    body = _codecs[version].encode(message)
    return bytes((version,)) + body if body else b""


def decode(data: bytes | memoryview) -> AnyMessage:
    """The message in `data`, or WireError."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    codec = _codecs.get(data[0]) if data else None
    if codec is None:
        raise WireError(f"message of version {data[0] if data else 'none'}, this replica speaks {spoken()}")
    try:
        return codec.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise WireError(f"malformed message: {error}") from error
    except UnicodeDecodeError as error:
        raise WireError(f"malformed name: {error}") from error
