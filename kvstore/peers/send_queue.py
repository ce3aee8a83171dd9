"""The bounded queue of payloads that wait to be sent on a link. Pure."""

from collections import deque

from kvstore.api.framing import LENGTH


class FrameQueue:
    """Queue of at most `max_bytes`. The oldest payloads are dropped to make room for the newest."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.waiting_bytes = 0
        self._payloads: deque[bytes] = deque()

    def __bool__(self) -> bool:
        return bool(self._payloads)

    def append(self, payload: bytes) -> list[bytes]:
        """Queue a payload and return the dropped ones, which include `payload` if it exceeds the bound by itself."""
        self._payloads.append(payload)
        self.waiting_bytes += len(payload)
        dropped = []
        while self.waiting_bytes > self.max_bytes:
            dropped.append(self._pop())
        return dropped

    def take(self, max_bytes: int) -> bytes:
        """Remove the oldest payloads, up to the one that reaches `max_bytes`, and return them as frames."""
        pieces: list[bytes] = []
        enough = self.waiting_bytes - max_bytes
        while self._payloads and self.waiting_bytes > enough:
            oldest = self._pop()
            pieces += (LENGTH.pack(len(oldest)), oldest)
        return b"".join(pieces)

    def clear(self) -> list[bytes]:
        """Remove all payloads and return them."""
        removed = list(self._payloads)
        self._payloads.clear()
        self.waiting_bytes = 0
        return removed

    def _pop(self) -> bytes:
        oldest = self._payloads.popleft()
        self.waiting_bytes -= len(oldest)
        return oldest
