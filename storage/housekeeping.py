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
        """Remove about so much; gives how many rows went."""
        if self._cut < marks.cut.slot:
            return self._drop_log(units, marks.cut.slot)
        if self._space.compacted < marks.compact:
            return self._compact(units, marks.compact)
        return self.clear_idle(units, NO_END)

    def _drop_log(self, units: int, cut: int) -> int:
        source = "SELECT slot AS number, length(value) AS size FROM log WHERE slot <= ? ORDER BY slot"
        bound = self._bound(source, (cut,), units)
        self._cut = cut if bound is None else bound
        return self._connection.execute("DELETE FROM log WHERE slot <= ?", (self._cut,)).rowcount

    def _compact(self, units: int, target: int) -> int:
        space = self._space
        source = (
            "SELECT new.revision AS number, coalesce(length(old.value), 0) AS size "  # noqa: S608 -- names of ours
            f"FROM {space.pairs} {BETWEEN} ORDER BY new.revision"
        )
        bound = self._bound(source, (space.compacted, target), units)
        return space.compact(target if bound is None else bound)

    def clear_idle(self, units: int, upto: int) -> int:
        """Remove rows behind the staged ones, as far as `upto`."""
        idle, after = self._space.idle, self._space.staging.revision
        source = (
            "SELECT revision AS number, coalesce(length(value), 0) AS size "  # noqa: S608
            f"FROM {idle} WHERE revision > ? AND revision <= ? ORDER BY revision"
        )
        bound = self._bound(source, (after, upto), units)
        if bound is None:
            self._space.littered &= upto < NO_END
            return 0
        return self._connection.execute(
            f"DELETE FROM {idle} WHERE revision > ? AND revision <= ?",  # noqa: S608
            (after, bound),
        ).rowcount

    def _bound(self, source: str, values: tuple[int, ...], units: int) -> int | None:
        """The last row of `source` that is within so many units, at least the first one; None when it has none."""
        bound: int | None = self._connection.execute(
            "SELECT coalesce(max(number) FILTER (WHERE units <= ?), min(number)) FROM ("  # noqa: S608
            f"SELECT number, sum(1 + size / {UNIT_BYTES}) OVER (ORDER BY number) AS units "
            f"FROM ({source} LIMIT ?))",
            (units, *values, units),
        ).fetchone()[0]
        return bound
