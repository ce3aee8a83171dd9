"""Moves the base of the live generation: what is superseded behind it goes, and what is alive there becomes a record.

That is done in rounds of many revisions: of a key that is written often only the last change becomes a row then, and
the rows that go lie close together. A round is done in pieces, each in some transaction. Until the base has moved the
history holds all that the state needs, so a round that ended half way has only left rows that do not count, and those
that it removed are superseded. Removing comes last: from then on who asks for the state as of the base has to wait.
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
"""A round ends with the run in which the last changes of its keys, which it keeps in memory, become as much as this."""
PIECE_UNITS = 256
_CHANGES_A_UNIT = 4


def units_of(size: int) -> int:
    """What it costs to store or to remove a row of so many bytes: one, and one for each page that it fills."""
    return 1 + size // UNIT_BYTES


def compact(space: KeySpace, target: int) -> Iterator[int]:
    """One round, towards position `target`: does a piece and gives its units, again and again. The caller holds a
    transaction around each. Raises StorageError on damage."""
    live = space.live
    yield 1 + live.drop_records_behind(space.compacted, NO_END)
    found = _Found(space.compacted, target)
    while not found.whole:
        run = next(live.runs(found.reached, target))
        found.take(run)
        yield 1 + len(run) // _CHANGES_A_UNIT
    alive = (change for change in found.last.values() if change.value is not None)
    for changes, units in _pieces((change, units_of(size_of(change))) for change in alive):
        live.add(changes)
        yield units
    found.superseded.sort()
    space.incomplete_below = found.reached
    for positions, units in _pieces((each, found.large.get(each, 1)) for each in found.superseded):
        live.drop_records(positions)
        yield units
    space.move_base(found.reached)


class _Found:
    """What happened behind the base."""

    def __init__(self, base: int, target: int) -> None:
        self.reached = base
        self.last: dict[bytes, Change] = {}
        """The last change of each key, in order of position."""
        self.superseded: list[int] = []
        """Records that go."""
        self.large: dict[int, int] = {}
        """Of these the units of those whose successors fill pages: most likely they do, too."""
        self._base, self._target = base, target
        self._kept_bytes = 0

    @property
    def whole(self) -> bool:
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
    """Rows and their units, in portions of about `PIECE_UNITS`."""
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
