"""Removes the rows that no longer count, in slices: log entries that are cut, revisions that are compacted, and the
state that was replaced. Nothing waits for it: what counts is decided by the bounds, and they are durable before.

A slice is measured in units, see `storage.compaction.units_of`.
"""

import sqlite3
from collections.abc import Iterator

from paxos.types import Slot
from storage.compaction import UNIT_BYTES, compact
from storage.hard_state import HardState
from storage.key_space import NO_END, KeySpace
from storage.state_tables import StateTables

BACKLOG_BYTES = 8 << 20
"""So much more history is worth compaction: the more it is, the more often a key was written in it, and only its last
change becomes a row."""


class Maintenance:
    """What is left to do, and does it. The caller holds the transaction, and stores the bounds in it."""

    def __init__(self, connection: sqlite3.Connection, space: KeySpace, cut: Slot) -> None:
        self._connection = connection
        self._space = space
        first = connection.execute("SELECT coalesce(min(slot), ?) FROM log", (NO_END,)).fetchone()[0]
        self._cut = min(cut, first - 1)
        """No slot up to here has a row."""
        self._round: tuple[StateTables, Iterator[int]] | None = None
        self._goal = 0
        """Up to this position rounds follow each other."""
        self._stored_bytes = 0
        """Of changes, since the goal was set."""

    def stored(self, size_bytes: int) -> None:
        """So much was added to the history."""
        self._stored_bytes += size_bytes

    def pending(self, hard_state: HardState) -> bool:
        """True when there may be rows that do not count."""
        return self._space.compacted < hard_state.compact or self.pressing(hard_state)

    def pressing(self, hard_state: HardState) -> bool:
        """The same, but for revisions that are not yet worth a round."""
        space = self._space
        return (
            self._cut < hard_state.truncation.slot
            or space.idle_has_garbage
            or space.has_spent_runs
            or self._worth_a_round(hard_state)
        )

    def slice(self, units: int, hard_state: HardState, *, idle: bool) -> int:
        """Remove about so much; gives how much it was. Each task is taken up while half of the slice is left: a log
        that is cut with each write would leave the others nothing for ever. `idle`: there is time for small rounds."""
        left = units
        if self._cut < hard_state.truncation.slot:
            left -= self._drop_log(left, hard_state.truncation.slot)
        if left >= units // 2 and (
            self._worth_a_round(hard_state) or (idle and self._space.compacted < hard_state.compact)
        ):
            left -= self._compact(left, hard_state.compact)
        if left >= units // 2 and self._space.has_spent_runs:
            left -= self._drop_spent(left)
        if left >= units // 2 and self._space.idle_has_garbage:
            left -= self.clear_idle(left, NO_END)
        return units - left

    def _worth_a_round(self, hard_state: HardState) -> bool:
        """True as well when one has begun, or ended before the goal."""
        base = self._space.compacted
        if base >= hard_state.compact:
            return False
        return self._under_way() is not None or base < self._goal or self._stored_bytes >= BACKLOG_BYTES

    def _under_way(self) -> Iterator[int] | None:
        """A round ends when its generation was replaced."""
        return self._round[1] if self._round is not None and self._round[0] is self._space.live else None

    def _compact(self, units: int, target: int) -> int:
        """Pieces of a round, perhaps the last one."""
        pieces = self._under_way()
        if pieces is None:
            if self._space.compacted >= self._goal:
                self._goal = target
                self._stored_bytes = 0
            pieces = compact(self._space, min(self._goal, target))
            self._round = self._space.live, pieces
        used = 0
        while used < units:
            piece = next(pieces, None)
            if piece is None:
                self._round = None
                break
            used += piece
        return used

    def _drop_log(self, units: int, cut: int) -> int:
        source = "SELECT slot AS number, length(value) AS size FROM log WHERE slot <= ? ORDER BY slot"
        bound, used = self._bound(source, (cut,), units)
        self._cut = cut if bound is None else bound
        self._connection.execute("DELETE FROM log WHERE slot <= ?", (self._cut,))
        return used

    def _drop_spent(self, units: int) -> int:
        live, base = self._space.live, self._space.compacted
        source = (
            f"SELECT last AS number, length(changes) AS size FROM {live.history} "  # noqa: S608 -- a name of ours
            "WHERE first <= ? AND last <= ? ORDER BY first"
        )
        bound, used = self._bound(source, (base, base), units)
        if bound is None:
            self._space.has_spent_runs = False
        else:
            live.drop_spent(bound)
        return used

    def clear_idle(self, units: int, upto: int) -> int:
        """Remove rows behind the staged ones, as far as `upto`; gives how much it was."""
        idle, after = self._space.idle, self._space.staging.position
        if not self._space.idle_has_garbage:
            return 0
        source = (
            "SELECT position AS number, coalesce(length(value), 0) AS size "  # noqa: S608 -- names of ours, as below
            f"FROM {idle.records} WHERE position > ? AND position <= ? ORDER BY position"
        )
        bound, used = self._bound(source, (after, upto), units)
        if bound is not None:
            idle.drop_records_behind(after, bound)
            return used
        source = (
            "SELECT last AS number, length(changes) AS size "  # noqa: S608
            f"FROM {idle.history} WHERE last > ? AND first <= ? ORDER BY first"
        )
        bound, used = self._bound(source, (after, upto), units)
        if bound is None:
            self._space.idle_has_garbage &= upto < NO_END
        else:
            idle.drop_runs_behind(after, bound)
        return used

    def _bound(self, source: str, values: tuple[int, ...], units: int) -> tuple[int | None, int]:
        """The last row of `source` that is within so many units, at least the first one, and the units up to it; None
        when it has no row."""
        bound, used = self._connection.execute(
            "SELECT coalesce(max(number) FILTER (WHERE units <= ?), min(number)), "  # noqa: S608
            "coalesce(max(units) FILTER (WHERE units <= ?), min(units), 0) FROM ("
            f"SELECT number, sum(1 + size / {UNIT_BYTES}) OVER (ORDER BY number) AS units "
            f"FROM ({source} LIMIT ?))",
            (units, units, *values, units),
        ).fetchone()
        return bound, used
