"""Compaction: it moves the base of the live state tables to a later position, see `storage.state_tables`.

Changes between the old and the new base that are still alive become records; records that they superseded are removed.
Compaction works in rounds over many revisions: of a key that is written often, only the last change becomes a row, and
the removed rows lie close together.

A round is divided into pieces, each within a transaction. A round first adds records, then removes superseded ones, and
moves the base last. An interrupted round is harmless: until the base has moved, added records are ignored, and the
history still has every change. Only a reader of the state must wait, from the first removal to the move of the base.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from storage.base import Change
from storage.key_space import NO_END, KeySpace
from storage.state_tables import size_of

T = TypeVar("T")

UNIT_BYTES = 4096
ROUND_BYTES = 8 << 20
ROUND_KEYS = 16 << 10
"""Limits of a round, in bytes and in keys: the round keeps the last change of each key in memory. The run of changes
that reaches a limit is the last run of the round."""
PIECE_UNITS = 256
"""Approximate units in one piece of a round."""
_CHANGES_PER_UNIT = 4


def units_of(size: int) -> int:
    """Return the cost of storing or removing a row of `size` bytes: one unit, and one more for each page that it
    fills."""
    return 1 + size // UNIT_BYTES


def compact(space: KeySpace, target: int) -> Iterator[int]:
    """Do one round towards position `target`, piece by piece, and yield the units of each piece.

    The caller has a transaction open while a piece runs. Raises DamagedError.
    """
    live = space.live
    yield 1 + live.drop_records_after(space.compacted, NO_END)
    round_ = _Round(space.compacted, target)
    while not round_.complete:
        run = next(live.runs(round_.reached, target))
        round_.take(run)
        yield 1 + len(run) // _CHANGES_PER_UNIT
    alive = (change for change in round_.last.values() if change.value is not None)
    for changes, units in _pieces((change, units_of(size_of(change))) for change in alive):
        live.add(changes)
        yield units
    round_.superseded.sort()
    space.incomplete_below = round_.reached
    for positions, units in _pieces((each, round_.large.get(each, 1)) for each in round_.superseded):
        live.drop_records(positions)
        yield units
    space.move_base(round_.reached)


class _Round:
    """The changes between the old base and the new one."""

    def __init__(self, base: int, target: int) -> None:
        self.reached = base
        self.last: dict[bytes, Change] = {}
        """Last change of each key, in order of position."""
        self.superseded: list[int] = []
        """Positions of the records to remove."""
        self.large: dict[int, int] = {}
        """Estimated units of the large records among `superseded`: a record is probably as large as the change that
        superseded it."""
        self._base, self._target = base, target
        self._kept_bytes = 0

    @property
    def complete(self) -> bool:
        return self.reached == self._target or len(self.last) >= ROUND_KEYS or self._kept_bytes >= ROUND_BYTES

    def take(self, run: list[Change]) -> None:
        for change in run:
            if not self.reached < change.position <= self._target:
                continue
            self.reached = change.position
            size = size_of(change)
            before = self.last.pop(change.key, None)
            self._kept_bytes += size if before is None else size - size_of(before)
            self.last[change.key] = change
            if 0 < change.supersedes <= self._base:
                self.superseded.append(change.supersedes)
                if size >= UNIT_BYTES:
                    self.large[change.supersedes] = units_of(size)


def _pieces(rows: Iterable[tuple[T, int]]) -> Iterator[tuple[list[T], int]]:
    """Divide rows with their units into pieces of about PIECE_UNITS."""
    piece: list[T] = []
    sum_ = 0
    for row, units in rows:
        piece.append(row)
        sum_ += units
        if sum_ >= PIECE_UNITS:
            yield piece, sum_
            piece, sum_ = [], 0
    if piece:
        yield piece, sum_
