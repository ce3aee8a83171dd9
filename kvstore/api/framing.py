"""Frames, which divide a stream of bytes into payloads: for the links between replicas and for the backup stream.

A frame is the payload's length in 4 bytes, big-endian, followed by the payload.
"""

import struct
from collections.abc import Iterator

LENGTH = struct.Struct(">I")


class FrameTooLongError(Exception):
    """The length at the head of a frame exceeds the bound."""


def frame(payload: bytes) -> bytes:
    """Return `payload` as a frame."""
    return LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Divider of a stream of bytes into payloads of at most `max_bytes`. The bound may change between two payloads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield every payload that `data` completes. Raises FrameTooLongError when a length exceeds the bound."""
        pending = self._buffer
        if pending:
            pending += data
        source = pending or data  # usually all frames are complete, and no byte is copied into the buffer
        start, size = 0, len(source)
        with memoryview(source) as view:
            while size - start >= LENGTH.size:
                (length,) = LENGTH.unpack_from(view, start)
                if length > self.max_bytes:
                    raise FrameTooLongError(f"frame of {length} bytes, at most {self.max_bytes} are allowed")
                end = start + LENGTH.size + length
                if end > size:
                    break
                yield bytes(view[start + LENGTH.size : end])
                start = end
        if source is pending:
            del pending[:start]
        elif start < size:
            pending += data[start:]
