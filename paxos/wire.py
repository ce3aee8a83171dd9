"""The wire format of a message: one byte for the version, then the message as encoded by the codec of that version.

A release supports a range of versions, and a connection uses the highest version that both ends support, so that
replicas can be upgraded one after the other. The types in `paxos.messages` are those of VERSION. A release that changes
them raises VERSION, and keeps the codec of the previous version until no replica of the cluster can need it:

    VERSION             msgpack, strictly decoded into the declared types
    earlier versions    a codec each: encoding omits the fields that the version lacks, decoding fills them in

The reader of a socket limits the length first (MAX_MESSAGE_BYTES); `decode` validates types, ranges and the lengths of
names. Bad bytes of a peer raise WireError and no other error. The reasons are in docs/decisions/0006-versions.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from paxos.errors import require
from paxos.messages import AnyMessage

VERSION = 2
"""Version of the types in `paxos.messages`. Version 1 was never released."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Limit of the length of a message. A page of 1 MiB that one large value exceeds still fits, with room to spare."""


class WireError(ValueError):
    """Bytes from a peer that are not a message of a supported version."""


class Codec(NamedTuple):
    """The codec of one version.

    `encode` returns b"" for a message that the version does not have. Such a message is not sent, as if the network had
    lost it. `decode` raises msgspec.MsgspecError or UnicodeDecodeError.
    """

    encode: Callable[[AnyMessage], bytes]
    decode: Callable[[memoryview], AnyMessage]


_codecs: dict[int, Codec] = {
    VERSION: Codec(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(AnyMessage).decode)
}


class Versions(NamedTuple):
    """The versions that a replica supports, from `lowest` to `highest`."""

    lowest: int
    highest: int

    def __str__(self) -> str:
        return f"version {self.highest}" if self.lowest == self.highest else f"versions {self.lowest} to {self.highest}"

    def common(self, other: "Versions") -> int | None:
        """Return the highest version that both ranges contain, None if there is none."""
        best = min(self.highest, other.highest)
        return best if best >= max(self.lowest, other.lowest) else None


def supported() -> Versions:
    """Return the versions that this program supports."""
    return Versions(min(_codecs), max(_codecs))


def register(version: int, codec: Codec) -> None:
    """Support one more version, adjacent to the supported ones. Call it before the first connection. Raises
    InvariantError if the versions would have a gap."""
    lowest, highest = supported()
    require(version in {lowest - 1, highest + 1}, f"version {version} would leave a gap: {supported()} is supported")
    _codecs[version] = codec


def encode(message: AnyMessage, version: int = VERSION) -> bytes:
    """Return the bytes of a message in a supported version, without a length: the connection adds the frame. Returns
    b"" if the version has no such message."""
    body = _codecs[version].encode(message)
    return bytes((version,)) + body if body else b""


def decode(data: bytes | memoryview) -> AnyMessage:
    """Return the message in `data`. Raises WireError if it is malformed, too long or of an unsupported version."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes exceeds the limit of {MAX_MESSAGE_BYTES} bytes")
    codec = _codecs.get(data[0]) if data else None
    if codec is None:
        raise WireError(f"message of version {data[0] if data else 'none'}: this replica supports {supported()}")
    try:
        return codec.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise WireError(f"malformed message: {error}") from error
    except UnicodeDecodeError as error:
        raise WireError(f"malformed name: {error}") from error
