"""Is all of SQLite's write-ahead log reachable? Asked before SQLite opens it (rule 5).

SQLite reads frames up to the first whose checksum is wrong and silently forgets the rest. It must: that is what a crash
in the midst of a write leaves behind. But a damaged bit in an early frame looks the same and takes committed votes with
it. They can be told apart, because a transaction is synced before the next one begins: a torn write is always the last
transaction. So a frame after a commit frame, both of this log and neither before the first bad frame, means that
a transaction which was once durable cannot be read any more. (Damage within the last transaction alone, or to the mark
that ends the one before it, cannot be told from a torn write; only the peers know.)

A frame's checksum goes on from that of the frame before it, and both are stored. So a frame can be looked at by itself,
and the frames up to the first bad one are those that fit what their predecessors say. That makes it quick without
more than the standard library: word n of many frames is one long integer, and one addition adds it to all their sums.

Format: https://www.sqlite.org/fileformat2.html#walformat
"""

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_MAGIC = 0x377F0682
_WORD_BITS = 32
_LANE_BITS = 64
"""The sums of one frame stand in one lane of a long integer: twice as wide as they are, for what is carried over."""
_FRAMES_AT_ONCE = 1024
_PAIRS_BETWEEN_MASKS = 16
"""A pair of words makes the sums at most 2.7 times as big: it takes 22 of them to fill a lane."""


class _Frame(NamedTuple):
    """What the header of a frame says."""

    current: bool
    """It was written since the log last began anew; false for what an earlier round left in the file."""
    commits: bool
    sums: tuple[int, int]
    """Stored in it: the checksum of the log up to its end."""


def unreachable(path: Path) -> int | None:
    """Number, from 1, of the first bad frame of the log at `path` if it hides durable transactions; 0 if the header
    does; None if nothing is lost, or there is no log. Raises OSError."""
    if not path.exists():
        return None
    content = path.read_bytes()
    if len(content) <= _HEADER.size:
        return None
    log = _Log(content)
    if not log.sound:
        return 0
    committed = False
    first_bad = log.intact
    for frame in log.frames[first_bad:]:
        if frame.current:
            if committed:
                return first_bad + 1
            committed = frame.commits
    return None


def length(path: Path) -> int:
    """Bytes of the log at `path` since it last began anew; what an earlier round left behind them does not count.
    Raises OSError."""
    with path.open("rb", buffering=0) as log:
        header = log.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return 0
        _, _, page_bytes, _, salt, *_ = _HEADER.unpack(header)
        frame_bytes: int = _FRAME.size + page_bytes

        def is_old(number: int) -> bool:
            log.seek(_HEADER.size + number * frame_bytes)
            return bool(_FRAME.unpack(log.read(_FRAME.size))[2] != salt)

        frames = (path.stat().st_size - _HEADER.size) // frame_bytes
        return bisect_left(range(frames), x=True, key=is_old) * frame_bytes


class _Log:
    """A log in memory. A frame that is cut short is not one."""

    def __init__(self, content: bytes) -> None:
        magic, _, self._page_bytes, _, salt, *sums = _HEADER.unpack_from(content)
        self._content = content
        self._big_endian = bool(magic & 1)
        self._sums = (sums[0], sums[1])
        words = struct.unpack_from(">6I" if self._big_endian else "<6I", content)
        self.sound = magic | 1 == _MAGIC | 1 and _checksum(iter(words), (0, 0), lanes=1) == self._sums
        """The header is as it was written."""
        self.frames = list(self._headers(salt)) if self.sound else []

    def _headers(self, salt: bytes) -> Iterator[_Frame]:
        frame_bytes = _FRAME.size + self._page_bytes
        for start in range(_HEADER.size, len(self._content) - frame_bytes + 1, frame_bytes):
            _, pages_after_commit, its_salt, *sums = _FRAME.unpack_from(self._content, start)
            yield _Frame(its_salt == salt, pages_after_commit > 0, (sums[0], sums[1]))

    @property
    def intact(self) -> int:
        """How many frames, from the first one on, are as they were written."""
        current = next((number for number, frame in enumerate(self.frames) if not frame.current), len(self.frames))
        for start in range(0, current, _FRAMES_AT_ONCE):
            end = min(start + _FRAMES_AT_ONCE, current)
            bad = self._first_bad(start, end)
            if bad is not None:
                return bad
        return current

    def _first_bad(self, start: int, end: int) -> int | None:
        """The first of the frames `start` .. `end` - 1 that does not follow from what the one before it says."""
        stored = [self._sums if start == 0 else self.frames[start - 1].sums]
        stored += [frame.sums for frame in self.frames[start:end]]
        seeds, ends = stored[:-1], stored[1:]
        seed = (_spread(first for first, _ in seeds), _spread(second for _, second in seeds))
        firsts, seconds = _checksum(self._columns(start, end), seed, lanes=end - start)
        wrong = (firsts ^ _spread(first for first, _ in ends)) | (seconds ^ _spread(second for _, second in ends))
        return start + ((wrong & -wrong).bit_length() - 1) // _LANE_BITS if wrong else None

    def _columns(self, start: int, end: int) -> Iterator[int]:
        """Of each word that counts, in turn, the words of all these frames, a lane for each."""
        frame_bytes = _FRAME.size + self._page_bytes
        words = array("I", self._content[_HEADER.size + start * frame_bytes : _HEADER.size + end * frame_bytes])
        if self._big_endian:
            words.byteswap()
        lanes = array("I", bytes((end - start) * _LANE_BITS // 8))
        for word in (0, 1, *range(_FRAME.size // 4, frame_bytes // 4)):
            lanes[::2] = words[word :: frame_bytes // 4]
            yield int.from_bytes(lanes.tobytes(), "little")


def _spread(words: Iterator[int]) -> int:
    """Each in a lane of its own, the first in the lowest."""
    return int.from_bytes(array("Q", words).tobytes(), sys.byteorder)


def _checksum(words: Iterator[int], sums: tuple[int, int], *, lanes: int) -> tuple[int, int]:
    """The checksum that follows `sums` after `words`, of which there is an even number; in all lanes at once."""
    mask = _spread(iter([(1 << _WORD_BITS) - 1] * lanes))
    first, second = sums
    for number, (one, two) in enumerate(zip(words, words, strict=True), start=1):
        first += one + second
        second += two + first
        if number % _PAIRS_BETWEEN_MASKS == 0:
            first &= mask
            second &= mask
    return first & mask, second & mask
