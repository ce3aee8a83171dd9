"""Retention: how much of the log is kept for peers that lag a little, and how much of the history for clients.

Each replica decides alone which slots and revisions it drops. A peer that lags behind the truncated log is sent a
snapshot instead.
"""

from collections import deque

import msgspec

from paxos.types import MS, Slot, Time
from storage.base import Truncation, first_of


class RetentionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on the log and on the history. The oldest slots or revisions that exceed one of them are dropped."""

    log_slots: int = 10_000
    """Applied slots in the log."""
    log_bytes: int = 64 << 20
    """Bytes of the values of these slots."""
    history_revisions: int = 100_000
    """Revisions in the history."""
    history_age_ms: int = 3_600_000
    """Age of the oldest revision in the history."""
    history_bytes: int = 64 << 20
    """Bytes that the history takes in memory and on the disk."""


class _Stretch(msgspec.Struct):
    """Changes from position `first` to `position`, made at about `at`. Their history takes `size_bytes`."""

    at: Time
    first: int
    position: int
    size_bytes: int


class Retention:
    """Slots and changes that are applied, and how far each of them may be dropped."""

    def __init__(self, limits: RetentionLimits, truncation: Truncation, compacted: int) -> None:
        self._limits = limits
        self._stretch = first_of(limits.history_revisions) // 64
        self._slots: deque[tuple[Truncation, int]] = deque()
        self._slots_bytes = 0
        self.truncation = truncation
        """Slot up to which the log may be truncated."""
        self._history: deque[_Stretch] = deque()
        self._history_bytes = 0
        self.compacted = compacted
        """Position up to which superseded records may be dropped."""

    def applied(self, slot: Slot, chain: bytes, size_bytes: int) -> None:
        """Note that `slot`, whose value has `size_bytes`, is applied. `chain` is the hash of the log up to it."""
        self._slots.append((Truncation(slot, chain), size_bytes))
        self._slots_bytes += size_bytes
        limits = self._limits
        while self._slots and (len(self._slots) > limits.log_slots or self._slots_bytes > limits.log_bytes):
            self.truncation, dropped = self._slots.popleft()
            self._slots_bytes -= dropped

    def jumped(self, truncation: Truncation, compacted: int) -> None:
        """Note that a snapshot replaced the state: there is no log up to `truncation`, no history up to `compacted`."""
        self._slots.clear()
        self._slots_bytes = 0
        self._history.clear()
        self._history_bytes = 0
        self.truncation, self.compacted = truncation, compacted

    def changed(self, position: int, size_bytes: int, now: Time) -> None:
        """Note changes up to `position`. Their history takes `size_bytes`."""
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
        """Raise `compacted` above all changes that exceed a limit."""
        limits, history = self._limits, self._history
        while history and (
            history[-1].position - history[0].position >= first_of(limits.history_revisions)
            or (self._history_bytes > limits.history_bytes and len(history) > 1)  # watchers have not seen the last yet
            or now - history[0].at > limits.history_age_ms * MS
        ):
            gone = history.popleft()
            self._history_bytes -= gone.size_bytes
            self.compacted = gone.position
