"""The stream that answers GET /backup. Pure: bytes and messages.

    StreamStart                      the sender, and the present size of the state
    StreamPage, StreamPage, ...      rows of the state in order of revision, each page after the one before
    StreamEnd  or  StreamFailure     the progress that the rows reach; or the reason why the stream ends here

Each message is a frame of `kvstore.api.framing`. A stream with another end is broken, and no backup is made of it.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from kvstore.api.framing import FrameReader, FrameTooLongError, frame
from storage.base import AppliedProgress, Change

VERSION = 1
"""Version of the stream. A replica sends one version, and names it in the first message."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Longest frame: a page and one value of the greatest size, and room to spare."""

_AGAIN = "take the backup again"
_Count = Annotated[int, msgspec.Meta(ge=0)]


class StreamError(Exception):
    """The bytes are no stream of a backup, or not a whole one. The message says what to do."""


class StreamStart(msgspec.Struct, frozen=True, tag="Start"):
    """First message. `revision` and `keys` are of the moment of the request; the end of the stream may be later."""

    version: _Count
    cluster: str
    node: str
    kvstore: str
    revision: _Count
    keys: _Count


class StreamPage(msgspec.Struct, frozen=True, tag="Page"):
    """Next rows, after revision `after`."""

    after: _Count
    changes: list[Change]


class StreamEnd(msgspec.Struct, frozen=True, tag="End"):
    """Last message: the rows are the whole state as of `progress`."""

    progress: AppliedProgress


class StreamFailure(msgspec.Struct, frozen=True, tag="Failed"):
    """Last message of a replica that cannot continue. `why` says what to do."""

    why: str


StreamMessage = StreamStart | StreamPage | StreamEnd | StreamFailure

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[StreamMessage] = msgspec.msgpack.Decoder(StreamMessage)


def pack(message: StreamMessage) -> bytes:
    """Return a message as bytes of the answer's body."""
    return frame(_encode(message))


class StreamDecoder:
    """Decoder of the body, piece by piece, which also checks the order of the messages."""

    def __init__(self) -> None:
        self._frames = FrameReader(MAX_FRAME_BYTES)
        self.started = False
        """True once the first message has arrived."""
        self._reached = 0
        self.ended = False
        """True once the whole stream has arrived."""

    def feed(self, data: bytes) -> Iterator[StreamStart | StreamPage | StreamEnd]:
        """Yield the messages that `data` completes. Raises StreamError."""
        try:
            for payload in self._frames.feed(data):
                yield self._follow(_decoder.decode(payload))
        except (msgspec.MsgspecError, UnicodeDecodeError, FrameTooLongError) as error:
            raise StreamError(
                f"the answer is no backup ({error}): check that the address is that of a replica"
            ) from error

    def finish(self) -> None:
        """Raise StreamError if the stream has no end."""
        if not self.ended:
            raise StreamError(f"the stream broke off: {_AGAIN}")

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
                if after != self._reached:
                    raise StreamError(f"the page after revision {self._reached} is missing: {_AGAIN}")
                self._reached = changes[-1].position if changes else after
            case StreamEnd():
                self.ended = True
        return message
