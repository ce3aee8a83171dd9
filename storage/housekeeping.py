"""Removes the rows that no longer count, in slices: log entries that are cut, revisions that are compacted, and the
state that was replaced. Nothing waits for it: what counts is decided by the bounds, and they are durable before.

A slice is measured in units, one for each row and for each page that its value fills.
"""

import sqlite3

from paxos.types import Slot
from storage.marks import Marks
from storage.revisions import BETWEEN, NO_END, KeySpace

UNIT_BYTES = 4096


class Housekeeping:
    """What is left to do, and does it. The caller holds the transaction, and stores the bounds in it."""

    def __init__(self, connection: sqlite3.Connection, space: KeySpace, cut: Slot) -> None:
        self._connection = connection
        self._space = space
        first = connection.execute("SELECT coalesce(min(slot), ?) FROM log", (NO_END,)).fetchone()[0]
        self._cut = min(cut, first - 1)
        """No slot up to here has a row."""

    def pending(self, marks: Marks) -> bool:
        """True when there may be rows that do not count."""
        return self._cut < marks.cut.slot or self._space.compacted < marks.compact or self._space.littered

    def slice(self, units: int, marks: Marks) -> int:
        """Remove about so much; gives how many rows went. When the log needs little of it, the state gets the rest: a
        log that is cut with each write would leave it nothing for ever."""
        removed = used = 0
        if self._cut < marks.cut.slot:
            removed, used = self._drop_log(units, marks.cut.slot)
        if used > units // 2:
            return removed
        if self._space.compacted < marks.compact:
            return removed + self._compact(units - used, marks.compact)
        return removed + self.clear_idle(units - used, NO_END)

    def _drop_log(self, units: int, cut: int) -> tuple[int, int]:
        """How many rows went, and how many units they were."""
        source = "SELECT slot AS number, length(value) AS size FROM log WHERE slot <= ? ORDER BY slot"
        bound, used = self._bound(source, (cut,), units)
        self._cut = cut if bound is None else bound
        return self._connection.execute("DELETE FROM log WHERE slot <= ?", (self._cut,)).rowcount, used

    def _compact(self, units: int, target: int) -> int:
        space = self._space
        source = (
            "SELECT new.revision AS number, coalesce(length(old.value), 0) AS size "  # noqa: S608 -- names of ours
            f"FROM {space.pairs} {BETWEEN} ORDER BY new.revision"
        )
        bound, _ = self._bound(source, (space.compacted, target), units)
        return space.compact(target if bound is None else bound)

    def clear_idle(self, units: int, upto: int) -> int:
        """Remove rows behind the staged ones, as far as `upto`."""
        idle, after = self._space.idle, self._space.staging.revision
        if not self._space.littered:
            return 0
        source = (
            "SELECT revision AS number, coalesce(length(value), 0) AS size "  # noqa: S608
            f"FROM {idle} WHERE revision > ? AND revision <= ? ORDER BY revision"
        )
        bound, _ = self._bound(source, (after, upto), units)
        if bound is None:
            self._space.littered &= upto < NO_END
            return 0
        return self._connection.execute(
            f"DELETE FROM {idle} WHERE revision > ? AND revision <= ?",  # noqa: S608
            (after, bound),
        ).rowcount

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
