"""What a replica sends to whoever asks it for a backup: pure, bytes and messages.

    Start                      who sends it, and how far the state reaches by now
    Page, Page, ...            rows of the state in order of revision, each page behind the one before
    End  or  Failed            as of when the rows are the whole state; or why there is no more

Each is a frame of `kvstore.api.framing`. A stream that ends otherwise is broken: no backup can be made of it.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from kvstore.api.framing import FrameReader, FrameTooLongError, frame
from storage.base import AppliedProgress, Change

VERSION = 1
"""Of the stream. A replica sends one, and says which."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Longest frame: a page and the longest value that goes over it, with room to spare."""

_Count = Annotated[int, msgspec.Meta(ge=0)]


class StreamError(Exception):
    """What arrives is no backup, or not all of it. The message says what to do next."""


class _Part(msgspec.Struct, frozen=True, tag=True):
    """Base of the parts. Fields that a later version adds are skipped, so that it can be named."""


class Start(_Part, frozen=True):
    """First. `revision` and `keys` are what the state had when it was asked for: the end may be beyond."""

    version: _Count
    cluster: str
    node: str
    kvstore: str
    revision: _Count
    keys: _Count


class Page(_Part, frozen=True):
    """The rows behind revision `after`; nothing lies between."""

    after: _Count
    changes: list[Change]


class End(_Part, frozen=True):
    """All pages up to here are the state as of `progress`."""

    progress: AppliedProgress


class Failed(_Part, frozen=True):
    """The replica cannot go on; `why` says what to do next."""

    why: str


Part = Start | Page | End | Failed

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Part] = msgspec.msgpack.Decoder(Part)


def pack(part: Part) -> bytes:
    """A part as it goes into the body of the answer."""
    return frame(_encode(part))


class Reader:
    """Takes the body piece by piece, and gives the parts in their order."""

    def __init__(self) -> None:
        self._frames = FrameReader(MAX_FRAME_BYTES)
        self.started = False
        """True once a part has arrived."""
        self._reached = 0
        self.ended = False
        """True once all has arrived."""

    def feed(self, data: bytes) -> Iterator[Start | Page | End]:
        """The parts that `data` completes. Raises StreamError."""
        try:
            for payload in self._frames.feed(data):
                yield self._follow(_decoder.decode(payload))
        except (msgspec.MsgspecError, UnicodeDecodeError, FrameTooLongError) as error:
            raise StreamError(f"what arrives is no backup ({error}): is that address one of a replica?") from error

    def finish(self) -> None:
        """Nothing follows. Raises StreamError when something should."""
        if not self.ended:
            raise StreamError("the stream broke off: take the backup again")

    def _follow(self, part: Part) -> Start | Page | End:
        if isinstance(part, Failed):
            raise StreamError(part.why)
        if isinstance(part, Start) == self.started or self.ended:
            raise StreamError(f"a {type(part).__name__} came out of turn: take the backup again")
        match part:
            case Start(version=version):
                if version != VERSION:
                    raise StreamError(
                        f"{part.node} (kvstore {part.kvstore}) sends backups of version {version}, this program takes "
                        f"version {VERSION}: run `kvstore backup` of its release"
                    )
                self.started = True
            case Page(after=after, changes=changes):
                if after != self._reached:
                    raise StreamError(f"the page behind revision {self._reached} is missing: take the backup again")
                self._reached = changes[-1].position if changes else after
            case End():
                self.ended = True
        return part
