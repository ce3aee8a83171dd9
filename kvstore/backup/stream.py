"""The stream that answers GET /backup. Pure: it does no I/O.

    StreamStart                      the sender, and the size of the state
    StreamPage, StreamPage, ...      rows of the state in order of revision, each page after the one before
    StreamEnd  or  StreamFailure     the applied progress that the rows reach; or the reason why the stream ends

Each message is a frame of `kvstore.api.framing`. A stream without StreamEnd is incomplete and yields no backup.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from kvstore.api.framing import FrameReader, FrameTooLongError, frame
from storage.base import AppliedProgress, Change

VERSION = 1
"""Version of the stream format, which the first message names."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Limit of a frame: more than a page and one value of the maximum length."""

_AGAIN = "take the backup again"
_Count = Annotated[int, msgspec.Meta(ge=0)]


class StreamError(Exception):
    """Error for bytes that are not a complete backup stream. The message has the remedy."""


class StreamStart(msgspec.Struct, frozen=True, tag="Start"):
    """First message. `revision` and `keys` are as of the request; StreamEnd may be as of a later revision."""

    version: _Count
    cluster: str
    node: str
    kvstore: str
    revision: _Count
    keys: _Count


class StreamPage(msgspec.Struct, frozen=True, tag="Page"):
    """The rows that follow position `after`."""

    after: _Count
    changes: list[Change]


class StreamEnd(msgspec.Struct, frozen=True, tag="End"):
    """Last message: the rows are the whole state as of `progress`."""

    progress: AppliedProgress


class StreamFailure(msgspec.Struct, frozen=True, tag="Failed"):
    """Last message of a replica that cannot continue. `why` is the cause and the remedy."""

    why: str


StreamMessage = StreamStart | StreamPage | StreamEnd | StreamFailure

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[StreamMessage] = msgspec.msgpack.Decoder(StreamMessage)


def pack(message: StreamMessage) -> bytes:
    """Return a message as bytes for the body of the answer."""
    return frame(_encode(message))


class StreamDecoder:
    """Incremental decoder of the body, which also checks the order of the messages."""

    def __init__(self) -> None:
        self._frames = FrameReader(MAX_FRAME_BYTES)
        self.started = False
        """True once the first message has arrived."""
        self._position = 0
        self.ended = False
        """True once the whole stream has arrived."""

    def feed(self, data: bytes) -> Iterator[StreamStart | StreamPage | StreamEnd]:
        """Yield the messages that `data` completes. Raises StreamError."""
        try:
            for payload in self._frames.feed(data):
                yield self._follow(_decoder.decode(payload))
        except (msgspec.MsgspecError, UnicodeDecodeError, FrameTooLongError) as error:
            raise StreamError(f"the answer is not a backup ({error}): check that the endpoint is a replica") from error

    def finish(self) -> None:
        """Raise StreamError if the stream is incomplete."""
        if not self.ended:
            raise StreamError(f"the backup stream ended early: {_AGAIN}")

    def _follow(self, message: StreamMessage) -> StreamStart | StreamPage | StreamEnd:
        if isinstance(message, StreamFailure):
            raise StreamError(message.why)
        if isinstance(message, StreamStart) == self.started or self.ended:
            raise StreamError(f"unexpected {type(message).__name__}: {_AGAIN}")
        match message:
            case StreamStart(version=version):
                if version != VERSION:
                    raise StreamError(
                        f"{message.node} (kvstore {message.kvstore}) sends backups of version {version}, this program "
                        f"reads version {VERSION}: run `kvstore backup` of its release"
                    )
                self.started = True
            case StreamPage(after=after, changes=changes):
                if after != self._position:
                    raise StreamError(f"the page after position {self._position} is missing: {_AGAIN}")
                self._position = changes[-1].position if changes else after
            case StreamEnd():
                self.ended = True
        return message
