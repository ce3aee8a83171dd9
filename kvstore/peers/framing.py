"""What the bytes of a peer link are cut into, and the queue of those that wait: pure.

A frame is a length in 4 bytes, big-endian, and as many bytes of payload.
"""

import struct
from collections import deque
from collections.abc import Iterator

from kvstore.peers.handshake import LinkRefused, Reason

_LENGTH = struct.Struct(">I")


def frame(payload: bytes) -> bytes:
    """`payload` as it goes over the link."""
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into payloads. `max_bytes` bounds the payload and may be changed between two of them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every payload that `data` completes. Raises LinkRefused at the head of a frame that is too long."""
        pending = self._buffer
        if pending:
            pending += data
        source = pending or data  # mostly all that came is whole, and is cut where it lies
        start, size = 0, len(source)
        with memoryview(source) as view:
            while size - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, start)
                if length > self.max_bytes:
                    text = f"frame of {length} bytes, at most {self.max_bytes} are allowed"
                    raise LinkRefused(Reason.TOO_LONG, f"{text}: only replicas of one release may connect here")
                end = start + _LENGTH.size + length
                if end > size:
                    break
                yield bytes(view[start + _LENGTH.size : end])
                start = end
        if source is pending:
            del pending[:start]
        elif start < size:
            pending += data[start:]


class FrameQueue:
    """Payloads that wait to be sent, at most `max_bytes` of them together: the oldest make room for the newest."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.waiting_bytes = 0
        self._payloads: deque[bytes] = deque()

    def __bool__(self) -> bool:
        return bool(self._payloads)

    def append(self, payload: bytes) -> list[bytes]:
        """Queue one payload; those that were dropped for it (the payload itself if it could never fit)."""
        self._payloads.append(payload)
        self.waiting_bytes += len(payload)
        dropped = []
        while self.waiting_bytes > self.max_bytes:
            dropped.append(self._pop())
        return dropped

    def take(self, max_bytes: int) -> bytes:
        """The oldest payloads as frames, ready to write: as many as make up `max_bytes`, the last one whole."""
        pieces: list[bytes] = []
        goal = self.waiting_bytes - max_bytes
        while self._payloads and self.waiting_bytes > goal:
            oldest = self._pop()
            pieces += (_LENGTH.pack(len(oldest)), oldest)
        return b"".join(pieces)

    def clear(self) -> list[bytes]:
        """Give up on all payloads; these they are."""
        abandoned = list(self._payloads)
        self._payloads.clear()
        self.waiting_bytes = 0
        return abandoned

    def _pop(self) -> bytes:
        oldest = self._payloads.popleft()
        self.waiting_bytes -= len(oldest)
        return oldest
