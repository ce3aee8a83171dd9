"""The lock record: which data belongs in a data directory. It is kept twice in the lock file (rule 28).

Missing, older or other data is detected with the record before the replica votes. The lock is on the file itself, so
the file is never replaced, and the record is written in place. A copy of the record is three lines: the process that
holds or last held the lock, the record, and a checksum over both. The copies begin at 0 and at `COPY_BYTES`, so they
share no block of the disk. One copy is durable before the other is written, so a write that is cut short, or damage of
one copy, leaves the other.
"""

from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

from storage.base import DamagedError, StorageError
from storage.errors import damaged

VERSION = 1
COPY_BYTES = 4096
"""Distance of the two copies. A copy is shorter."""


class LockRecord(msgspec.Struct, frozen=True):
    """The record of the data that belongs in the directory."""

    version: int = VERSION
    """Version of this record."""
    boot: int = 0
    """Boot that the data has reached, 0 if there is no data."""
    incarnation: int = 0
    """Incarnation of the data, 0 if there is no data."""
    replaces: int = 0
    """Incarnation of the damaged data that was set aside, 0 for none. It is `incarnation` until all files are moved."""
    open: bool = False
    """True while the write-ahead log must exist and not be empty."""


class FoundRecord(NamedTuple):
    """A lock record, and the number of the copy from which it was read."""

    record: LockRecord
    copy: int


def pack(record: LockRecord, holder: str) -> bytes:
    """Return a copy of `record`. `holder` describes the process that holds the lock."""
    lines = f"{holder}\n{msgspec.json.encode(record).decode()}\n".encode()
    return lines + b"%08x\n" % crc32(lines)


def unpack(content: bytes, path: Path) -> FoundRecord:
    """Return the record in the `content` of the lock file `path`, an empty record if none was ever written.

    Raises DamagedError if both copies are damaged, StorageError if the version of the record is newer than this
    program.
    """
    found = _found(content, path)
    if found.record.version > VERSION:
        raise StorageError(
            f"{path} was written by a newer version of this program (lock record {found.record.version}, this version "
            f"knows up to {VERSION}): start that version"
        )
    return found


def _found(content: bytes, path: Path) -> FoundRecord:
    for copy in (0, 1):
        lines = content[copy * COPY_BYTES : (copy + 1) * COPY_BYTES].split(b"\n", 3)
        if len(lines) > 2 and lines[2] == b"%08x" % crc32(b"%b\n%b\n" % (lines[0], lines[1])):
            return FoundRecord(_decode(lines[1], path), copy)
    if not content[:COPY_BYTES].strip(b"\0"):
        return FoundRecord(LockRecord(), 0)  # the first record was not written completely
    if len(content) > COPY_BYTES:
        raise _damaged(path)
    return FoundRecord(_unchecked(content, path), 0)


def _unchecked(content: bytes, path: Path) -> LockRecord:
    """Return the record of an earlier release, in the second line. A longer record may have left its tail behind it."""
    line = content.split(b"\n")[1].strip() if b"\n" in content else b""
    if line.isdigit() and len(line) < 19:
        return LockRecord(boot=int(line))  # the format of the first releases
    return _decode(line, path)


def _decode(line: bytes, path: Path) -> LockRecord:
    try:
        return msgspec.json.decode(line, type=LockRecord)
    except msgspec.MsgspecError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> DamagedError:
    return damaged(path, "the lock record is damaged, so the data beside it may be older or incomplete")
