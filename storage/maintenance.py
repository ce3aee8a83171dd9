"""Maintenance: it removes invalid rows, in slices.

Invalid rows are truncated entries of the log, compacted records and changes, and rows of a replaced state. The manifest
alone decides which rows are valid, and it is durable before any row is removed, so nothing waits for maintenance.

The size of a slice is measured in units, see `storage.compaction.units_of`.
"""

import sqlite3
from collections.abc import Iterator

from paxos.types import Slot
from storage.compaction import UNIT_BYTES, compact
from storage.hard_state import HardState
from storage.key_space import NO_END, KeySpace
from storage.state_tables import StateTables

BACKLOG_BYTES = 8 << 20
"""Bytes of new history that start a round of compaction under load. The longer the history, the more often it has
changed the same keys, and only the last change of a key becomes a row."""


class Maintenance:
    """The deferred work of one storage. The caller opens the transactions, and stores the manifest in them."""

    def __init__(self, connection: sqlite3.Connection, space: KeySpace, truncated: Slot) -> None:
        """Find the rows that are left to remove. The log is truncated up to slot `truncated`."""
        self._connection = connection
        self._space = space
        first = connection.execute("SELECT coalesce(min(slot), ?) FROM log", (NO_END,)).fetchone()[0]
        self._log_removed = min(truncated, first - 1)
        """Slot up to which the log has no rows."""
        self._round: tuple[StateTables, Iterator[int]] | None = None
        self._goal = 0
        """Position up to which one round of compaction follows another without waiting for a new backlog."""
        self._stored_bytes = 0
        """Bytes of changes that were stored since the goal was set."""

    def stored(self, size_bytes: int) -> None:
        """Note that changes of `size_bytes` were added to the history."""
        self._stored_bytes += size_bytes

    def pending(self, hard_state: HardState) -> bool:
        """Return True if there may be rows to remove."""
        return self._space.compacted < hard_state.compact or self.pending_under_load(hard_state)

    def pending_under_load(self, hard_state: HardState) -> bool:
        """Return True if there may be rows to remove under load: as `pending`, but False if the only work is a round of
        compaction with a small backlog."""
        space = self._space
        return (
            self._log_removed < hard_state.truncation.slot
            or space.idle_has_garbage
            or space.has_spent_runs
            or self._round_is_due(hard_state)
        )

    def slice(self, units: int, hard_state: HardState, *, idle: bool) -> int:
        """Remove rows of about `units`; return the units removed.

        Each task starts only while at least half of the slice is left, so that a log that is truncated with each write
        does not starve the other tasks. `idle` allows rounds of compaction with a small backlog.
        """
        left = units
        if self._log_removed < hard_state.truncation.slot:
            left -= self._drop_log(left, hard_state.truncation.slot)
        if left >= units // 2 and (
            self._round_is_due(hard_state) or (idle and self._space.compacted < hard_state.compact)
        ):
            left -= self._compact(left, hard_state.compact)
        if left >= units // 2 and self._space.has_spent_runs:
            left -= self._drop_spent_runs(left)
        if left >= units // 2 and self._space.idle_has_garbage:
            left -= self.clear_idle_tables(left, NO_END)
        return units - left

    def _round_is_due(self, hard_state: HardState) -> bool:
        """Return True if a round of compaction is due, has begun, or ended before the goal."""
        base = self._space.compacted
        if base >= hard_state.compact:
            return False
        return self._current_round() is not None or base < self._goal or self._stored_bytes >= BACKLOG_BYTES

    def _current_round(self) -> Iterator[int] | None:
        """Return the remaining pieces of the round that has begun, None if there is no such round or its tables are no
        longer the live ones."""
        return self._round[1] if self._round is not None and self._round[0] is self._space.live else None

    def _compact(self, units: int, target: int) -> int:
        """Do pieces of the current round, or of a new one, of about `units`; return the units done."""
        pieces = self._current_round()
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

    def _drop_log(self, units: int, truncated: Slot) -> int:
        source = "SELECT slot AS number, length(value) AS size FROM log WHERE slot <= ? ORDER BY slot"
        bound, used = self._bound(source, (truncated,), units)
        self._log_removed = truncated if bound is None else bound
        self._connection.execute("DELETE FROM log WHERE slot <= ?", (self._log_removed,))
        return used

    def _drop_spent_runs(self, units: int) -> int:
        live, base = self._space.live, self._space.compacted
        source = (
            f"SELECT last AS number, length(changes) AS size FROM {live.history} "  # noqa: S608 -- the table name is a constant
            "WHERE first <= ? AND last <= ? ORDER BY first"
        )
        bound, used = self._bound(source, (base, base), units)
        if bound is None:
            self._space.has_spent_runs = False
        else:
            live.drop_runs_upto(bound)
        return used

    def clear_idle_tables(self, units: int, upto: int) -> int:
        """Remove rows of the idle tables after the staged ones, up to position `upto`; return the units removed."""
        idle, after = self._space.idle, self._space.staging.position
        if not self._space.idle_has_garbage:
            return 0
        source = (
            "SELECT position AS number, coalesce(length(value), 0) AS size "  # noqa: S608 -- table names are constants, here and below
            f"FROM {idle.records} WHERE position > ? AND position <= ? ORDER BY position"
        )
        bound, used = self._bound(source, (after, upto), units)
        if bound is not None:
            idle.drop_records_after(after, bound)
            return used
        source = (
            "SELECT last AS number, length(changes) AS size "  # noqa: S608
            f"FROM {idle.history} WHERE last > ? AND first <= ? ORDER BY first"
        )
        bound, used = self._bound(source, (after, upto), units)
        if bound is None:
            self._space.idle_has_garbage &= upto < NO_END
        else:
            idle.drop_runs_after(after, bound)
        return used

    def _bound(self, source: str, values: tuple[int, ...], units: int) -> tuple[int | None, int]:
        """Return the number of the last row of the query `source` within `units`, at least of the first row, and the
        units up to this row. Returns None and 0 if the query has no rows."""
        bound, used = self._connection.execute(
            "SELECT coalesce(max(number) FILTER (WHERE units <= ?), min(number)), "  # noqa: S608
            "coalesce(max(units) FILTER (WHERE units <= ?), min(units), 0) FROM ("
            f"SELECT number, sum(1 + size / {UNIT_BYTES}) OVER (ORDER BY number) AS units "
            f"FROM ({source} LIMIT ?))",
            (units, units, *values, units),
        ).fetchone()
        return bound, used
