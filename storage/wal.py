"""Is all of SQLite's write-ahead log reachable? Asked before SQLite opens it (rule 5).

SQLite reads frames up to the first whose checksum is wrong and silently forgets the rest. It must: that is what a crash
in the midst of a write leaves behind. But a damaged bit in an early frame looks the same and takes committed votes with
it. They can be told apart, because a transaction is synced before the next one begins: a torn write is always the last
transaction. So a frame after a commit frame, both of this log and neither before the first bad frame, means that
a transaction which was once durable cannot be read any more. (Damage within the last transaction alone, or to the mark
that ends the one before it, cannot be told from a torn write; only the peers know.)

Format: https://www.sqlite.org/fileformat2.html#walformat
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF


class _Frame(NamedTuple):
    intact: bool
    """It and everything before it is as it was written."""
    current: bool
    """It was written since the log last began anew; false for what an earlier round left in the file."""
    commits: bool


def unreachable(path: Path) -> int | None:
    """Number, from 1, of the first bad frame of the log at `path` if it hides durable transactions; 0 if the header
    does; None if nothing is lost, or there is no log. Raises OSError."""
    if not path.exists():
        return None
    content = path.read_bytes()
    if len(content) <= _HEADER.size:
        return None
    first_bad = None
    committed = False
    for number, frame in enumerate(_frames(content)):
        if not frame.intact and first_bad is None:
            first_bad = number
        if first_bad is not None and frame.current:
            if committed:
                return first_bad
            committed = frame.commits
    return 0 if first_bad == 0 else None


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


def _frames(content: bytes) -> Iterator[_Frame]:
    """The header, as if it were a frame, and the frames behind it. A frame that is cut short is not one."""
    magic, _, page_bytes, _, salt, *stored = _HEADER.unpack_from(content)
    order = ">" if magic & 1 else "<"
    sums = _checksum(content[:24], order, (0, 0))
    intact = magic | 1 == _MAGIC | 1 and list(sums) == stored
    yield _Frame(intact, current=False, commits=False)
    if not intact:
        return
    for start in range(_HEADER.size, len(content) - _FRAME.size - page_bytes + 1, _FRAME.size + page_bytes):
        page_start = start + _FRAME.size
        _, pages_after_commit, frame_salt, *stored = _FRAME.unpack_from(content, start)
        current = frame_salt == salt
        if intact:
            sums = _checksum(content[start : start + 8] + content[page_start : page_start + page_bytes], order, sums)
            intact = current and list(sums) == stored
        yield _Frame(intact, current, pages_after_commit > 0)


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    for one, two in struct.iter_unpack(order + "II", data):
        first = (first + one + second) & _WORD
        second = (second + two + first) & _WORD
    return first, second
