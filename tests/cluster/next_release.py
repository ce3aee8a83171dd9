"""A replica of a release that does not exist: it speaks one version of messages more, in which a Heartbeat has one
field more. `python -m tests.cluster.next_release serve ...` is `kvstore serve ...` of it.

It shows what a release has to do that changes a message: the new type takes the place of the old one, and the codec of
the version before it leaves out what is new, and fills in what is old.
"""

import logging

import msgspec

from kvstore.cli import main
from paxos import wire
from paxos.messages import AnyMessage, Heartbeat
from paxos.types import Count

VERSION = wire.VERSION + 1
FIRST_WORD = f"the first Heartbeat of version {VERSION} came, it has its new field"


class _NewHeartbeat(Heartbeat, frozen=True, tag="Heartbeat"):
    """`members`: how many the leader counts."""

    members: Count


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_NewHeartbeat)
_told = False


def _encode(message: AnyMessage) -> bytes:
    if isinstance(message, Heartbeat):
        message = _NewHeartbeat(message.ballot, message.nonce, message.chosen, members=3)
    return _encoder.encode(message)


def _decode(data: memoryview) -> AnyMessage:
    if bytes(data[1:11]) != b"\xa9Heartbeat":
        return wire.decode(bytes((wire.VERSION,)) + bytes(data))
    beat = _decoder.decode(data)
    global _told  # noqa: PLW0603 - one line for the test that waits for it
    if not _told and beat.members == 3:
        _told = True
        logging.getLogger(__name__).info(FIRST_WORD)
    return Heartbeat(beat.ballot, beat.nonce, beat.chosen)


if __name__ == "__main__":
    wire.register(VERSION, wire.Codec(_encode, _decode))
    main()
