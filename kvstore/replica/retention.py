"""How much of the past is kept: the log for peers that lag a little, and superseded revisions for whoever asks.

Each replica decides for itself what it drops. Nobody waits for it: a peer that lags behind the log is sent the state.
"""

from collections import deque

import msgspec

from paxos.types import MS, Slot, Time
from storage.base import Truncation, first_of


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What exceeds any of these goes, the oldest first."""

    log_slots: int = 10_000
    log_bytes: int = 64 << 20
    """Applied slots that are kept, and the sum of their values."""
    history_revisions: int = 100_000
    history_age_ms: int = 3_600_000
    history_bytes: int = 64 << 20
    """Revisions that are remembered: how many, for how long, and what that takes in memory and on the disk."""


class _Stretch(msgspec.Struct):
    """Changes up to `position`, made about `at`, that take `size_bytes` to remember."""

    at: Time
    first: int
    position: int
    size_bytes: int


class Retention:
    """Told of everything that is applied, it says what may go."""

    def __init__(self, limits: Limits, cut: Truncation, compacted: int) -> None:
        self._limits = limits
        self._stretch = first_of(limits.history_revisions) // 64
        self._slots: deque[tuple[Truncation, int]] = deque()
        self._slots_bytes = 0
        self.cut = cut
        """The log may be cut here."""
        self._history: deque[_Stretch] = deque()
        self._history_bytes = 0
        self.compacted = compacted
        """What was superseded up to this position may go."""

    def applied(self, slot: Slot, chain: bytes, size_bytes: int) -> None:
        """`slot` is applied; `chain` is the hash up to it."""
        self._slots.append((Truncation(slot, chain), size_bytes))
        self._slots_bytes += size_bytes
        limits = self._limits
        while self._slots and (len(self._slots) > limits.log_slots or self._slots_bytes > limits.log_bytes):
            self.cut, dropped = self._slots.popleft()
            self._slots_bytes -= dropped

    def jumped(self, cut: Truncation, compacted: int) -> None:
        """The state was replaced by one as of `cut`: there is no log before it."""
        self._slots.clear()
        self._slots_bytes = 0
        self._history.clear()
        self._history_bytes = 0
        self.cut, self.compacted = cut, compacted

    def changed(self, position: int, size_bytes: int, now: Time) -> None:
        """The store came to `position`; to remember what it was before takes `size_bytes` more."""
        last = self._history[-1] if self._history else None
        full = last is not None and (
            position - last.first > self._stretch or last.size_bytes > self._limits.history_bytes // 64
        )
        if last is None or full or now - last.at >= 1000 * MS:
            self._history.append(_Stretch(now, position, position, size_bytes))
        else:
            last.position = position
            last.size_bytes += size_bytes
        self._history_bytes += size_bytes

    def compact(self, now: Time) -> None:
        """Let go of what is too old by now."""
        limits, history = self._limits, self._history
        while history and (
            history[-1].position - history[0].position >= first_of(limits.history_revisions)
            or (self._history_bytes > limits.history_bytes and len(history) > 1)  # who watches has not heard of it yet
            or now - history[0].at > limits.history_age_ms * MS
        ):
            gone = history.popleft()
            self._history_bytes -= gone.size_bytes
            self.compacted = gone.position
