"""Detection of damage in SQLite's write-ahead log (WAL), before SQLite opens the file (rule 5).

SQLite reads frames up to the first frame with a wrong checksum and silently ignores the rest, because a crash during a
write leaves such a torn end. But a flipped bit in an early frame looks the same to SQLite, and the ignored frames may
hold committed votes.

The two cases differ, because a transaction is synced before the next one begins: a torn write is always in the last
transaction. If, at or after the first bad frame, a current frame follows a current commit frame, a durable transaction
has become unreadable. Damage of the last transaction only, or of the commit mark before it, cannot be distinguished
from a torn write; the leader detects the lost votes later (ForgottenVotes).

The checksum of a frame continues the stored checksum of the frame before it, so each frame can be verified on its own.
To be fast with the standard library alone, the code puts word n of many frames into one long integer, a lane for each
frame, and adds it to the sums of all frames with one addition.

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
"""Width of the lane of one frame in a long integer: twice the width of a sum, to hold carries."""
_FRAMES_AT_ONCE = 1024
_PAIRS_BETWEEN_MASKS = 16
"""Pairs of words between two reductions of the sums. A pair makes the sums at most 2.7 times as large, so 22 pairs
would overflow a lane."""


class _Frame(NamedTuple):
    """The header of a frame."""

    current: bool
    """True if the frame was written since the WAL last restarted; False for a frame that was left in the file."""
    commits: bool
    """True for the last frame of a transaction."""
    sums: tuple[int, int]
    """Stored checksum of the WAL up to the end of the frame."""


def unreachable(path: Path) -> int | None:
    """Return the number, from 1, of the first bad frame in the WAL at `path` if it hides durable transactions.

    Returns 0 if the header is bad, and None if no transaction is hidden or there is no WAL. Raises OSError.
    """
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
    """Return the bytes of the frames that were written to the WAL at `path` since it last restarted. Raises OSError."""
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
    """A WAL in memory. An incomplete last frame is ignored."""

    def __init__(self, content: bytes) -> None:
        magic, _, self._page_bytes, _, salt, *sums = _HEADER.unpack_from(content)
        self._content = content
        self._big_endian = bool(magic & 1)
        self._sums = (sums[0], sums[1])
        words = struct.unpack_from(">6I" if self._big_endian else "<6I", content)
        self.sound = magic | 1 == _MAGIC | 1 and _checksum(iter(words), (0, 0), lanes=1) == self._sums
        """True if the checksum of the header is right."""
        self.frames = list(self._headers(salt)) if self.sound else []

    def _headers(self, salt: bytes) -> Iterator[_Frame]:
        frame_bytes = _FRAME.size + self._page_bytes
        for start in range(_HEADER.size, len(self._content) - frame_bytes + 1, frame_bytes):
            _, pages_after_commit, frame_salt, *sums = _FRAME.unpack_from(self._content, start)
            yield _Frame(frame_salt == salt, pages_after_commit > 0, (sums[0], sums[1]))

    @property
    def intact(self) -> int:
        """Number of current frames before the first bad one."""
        current = next((number for number, frame in enumerate(self.frames) if not frame.current), len(self.frames))
        for start in range(0, current, _FRAMES_AT_ONCE):
            end = min(start + _FRAMES_AT_ONCE, current)
            bad = self._first_bad(start, end)
            if bad is not None:
                return bad
        return current

    def _first_bad(self, start: int, end: int) -> int | None:
        """Return the first of the frames `start` .. `end` - 1 whose checksum does not continue that of the frame before
        it, None if all do."""
        stored = [self._sums if start == 0 else self.frames[start - 1].sums]
        stored += [frame.sums for frame in self.frames[start:end]]
        seeds, ends = stored[:-1], stored[1:]
        seed = (_spread(first for first, _ in seeds), _spread(second for _, second in seeds))
        firsts, seconds = _checksum(self._columns(start, end), seed, lanes=end - start)
        wrong = (firsts ^ _spread(first for first, _ in ends)) | (seconds ^ _spread(second for _, second in ends))
        return start + ((wrong & -wrong).bit_length() - 1) // _LANE_BITS if wrong else None

    def _columns(self, start: int, end: int) -> Iterator[int]:
        """Yield, for each word that the checksum covers, this word of all frames, one lane for each frame."""
        frame_bytes = _FRAME.size + self._page_bytes
        words = array("I", self._content[_HEADER.size + start * frame_bytes : _HEADER.size + end * frame_bytes])
        if self._big_endian:
            words.byteswap()
        lanes = array("I", bytes((end - start) * _LANE_BITS // 8))
        for word in (0, 1, *range(_FRAME.size // 4, frame_bytes // 4)):
            lanes[::2] = words[word :: frame_bytes // 4]
            yield int.from_bytes(lanes.tobytes(), "little")


def _spread(words: Iterator[int]) -> int:
    """Return an integer with one word in each lane, the first word in the lowest lane."""
    return int.from_bytes(array("Q", words).tobytes(), sys.byteorder)


def _checksum(words: Iterator[int], sums: tuple[int, int], *, lanes: int) -> tuple[int, int]:
    """Continue the checksum `sums` with an even number of `words`, in all lanes at once."""
    mask = _spread(iter([(1 << _WORD_BITS) - 1] * lanes))
    first, second = sums
    for number, (one, two) in enumerate(zip(words, words, strict=True), start=1):
        first += one + second
        second += two + first
        if number % _PAIRS_BETWEEN_MASKS == 0:
            first &= mask
            second &= mask
    return first & mask, second & mask
