"""Bytes <-> message: a version byte, then msgpack, decoded into the declared types or not at all.

Whoever reads from a socket bounds the length first (`MAX_MESSAGE_BYTES`); here the content is validated: types, ranges,
lengths of names. A peer's bad bytes raise WireError and nothing else.
"""

import msgspec

from paxos.messages import AnyMessage

VERSION = 1
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Longest message: a batch (1 MiB and the value that went over it) with room to spare."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_VERSION_BYTE = bytes([VERSION])


class WireError(ValueError):
    """Bytes from a peer that are not a message of this version."""


def encode(message: AnyMessage) -> bytes:
    """Bytes of one message, without a length: framing belongs to the link."""
    return _VERSION_BYTE + _encoder.encode(message)


def decode(data: bytes | memoryview) -> AnyMessage:
    """The message in `data`, or WireError."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    if not data or data[0] != VERSION:
        raise WireError(f"message of version {data[0] if data else 'none'}, this replica speaks {VERSION}")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise WireError(f"malformed message: {error}") from error
    except UnicodeDecodeError as error:
        raise WireError(f"malformed name: {error}") from error
