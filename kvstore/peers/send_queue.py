"""The payloads that wait to be sent over a link: pure."""

from collections import deque

from kvstore.api.framing import LENGTH


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
            pieces += (LENGTH.pack(len(oldest)), oldest)
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
