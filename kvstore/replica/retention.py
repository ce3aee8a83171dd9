"""Retention of the log, for peers that lag a little, and of the history, for clients.

Each replica decides on its own which slots and revisions to drop. A peer that lacks truncated slots gets a snapshot.
"""

from collections import deque

import msgspec

from paxos.types import MS, Slot, Time
from storage.base import Truncation, first_of


class RetentionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on the log and on the history. The oldest slots or revisions that exceed a limit are dropped."""

    log_slots: int = 10_000
    """Number of applied slots in the log."""
    log_bytes: int = 64 << 20
    """Bytes of the values of the applied slots in the log."""
    history_revisions: int = 100_000
    """Number of revisions in the history."""
    history_age_ms: int = 3_600_000
    """Age of the oldest revision in the history."""
    history_bytes: int = 64 << 20
    """Bytes that the history takes in memory and on the disk."""


LIMITS = RetentionLimits.__struct_fields__

ON_A_FULL_DISK = RetentionLimits(
    log_slots=100, log_bytes=1 << 20, history_revisions=1000, history_age_ms=10_000, history_bytes=1 << 20
)
"""Limits while the disk is full: what is dropped makes room in the database for other rows."""


class _HistorySegment(msgspec.Struct):
    """Changes from position `first` to `position`, made within a second from `at`. Their history takes `size_bytes`."""

    at: Time
    first: int
    position: int
    size_bytes: int


class Retention:
    """The points up to which the log may be truncated and the history compacted."""

    def __init__(self, limits: RetentionLimits, truncation: Truncation, compacted: int) -> None:
        self._configured = self._limits = limits
        self._segment_positions = first_of(limits.history_revisions) // 64
        self._slots: deque[tuple[Truncation, int]] = deque()
        self._slots_bytes = 0
        self.truncation = truncation
        """Slot up to which the log may be truncated."""
        self._history: deque[_HistorySegment] = deque()
        self._history_bytes = 0
        self.compacted = compacted
        """Position up to which superseded records may be dropped."""

    def applied(self, slot: Slot, chain: bytes, size_bytes: int) -> None:
        """Record that `slot`, whose value has `size_bytes`, is applied. `chain` is the chain up to `slot`."""
        self._slots.append((Truncation(slot, chain), size_bytes))
        self._slots_bytes += size_bytes
        limits = self._limits
        while self._slots and (len(self._slots) > limits.log_slots or self._slots_bytes > limits.log_bytes):
            self.truncation, dropped = self._slots.popleft()
            self._slots_bytes -= dropped

    def limit(self, *, disk_is_full: bool) -> None:
        """Retain less while the disk is full."""
        limits, least = self._configured, ON_A_FULL_DISK
        if disk_is_full:
            limits = RetentionLimits(**{name: min(getattr(limits, name), getattr(least, name)) for name in LIMITS})
        self._limits = limits

    def restart(self, truncation: Truncation, compacted: int) -> None:
        """Start over after a snapshot: no log is left up to `truncation`, and no history up to `compacted`."""
        self._slots.clear()
        self._slots_bytes = 0
        self._history.clear()
        self._history_bytes = 0
        self.truncation, self.compacted = truncation, compacted

    def changed(self, position: int, size_bytes: int, now: Time) -> None:
        """Record changes up to `position`. Their history takes `size_bytes`."""
        last = self._history[-1] if self._history else None
        full = last is not None and (
            position - last.first > self._segment_positions or last.size_bytes > self._limits.history_bytes // 64
        )
        if last is None or full or now - last.at >= 1000 * MS:
            self._history.append(_HistorySegment(now, position, position, size_bytes))
        else:
            last.position = position
            last.size_bytes += size_bytes
        self._history_bytes += size_bytes

    def compact(self, now: Time) -> None:
        """Raise `compacted` to the last change that exceeds a limit."""
        limits, history = self._limits, self._history
        while history and (
            history[-1].position - history[0].position >= first_of(limits.history_revisions)
            or (self._history_bytes > limits.history_bytes and len(history) > 1)  # watchers may lack the last
            or now - history[0].at > limits.history_age_ms * MS
        ):
            dropped = history.popleft()
            self._history_bytes -= dropped.size_bytes
            self.compacted = dropped.position
