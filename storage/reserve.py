"""The reserve: a preallocated file in the data directory, which is removed when the disk is full.

Without it a full disk would end every replica, and none could start again to let anybody delete a key. With it a
replica goes on to vote and to store small writes such as deletions.
"""

import os
from contextlib import suppress
from pathlib import Path

from storage.base import DiskSpace
from storage.directory import DATA_MODE

RESERVE_FILE = "reserve"
RESERVE_BYTES = 16 << 20
"""Size of the reserve: enough for the values that are under way when the disk becomes full, and for many deletions."""


class Reserve:
    """The reserve of one data directory, of `size_bytes`; 0 for none, for a directory that no replica serves."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._path = directory / RESERVE_FILE
        self._size_bytes = size_bytes
        self.held = self._exists()
        """True while the reserve is there, as far as the last check found; always if its size is 0."""

    def give_up(self) -> bool:
        """Remove the file, so that the disk has its space. Return False if there is none. Raises OSError."""
        if not self.held or not self._size_bytes:
            return False
        self._path.unlink(missing_ok=True)
        self.held = False
        return True

    def space(self, reusable_bytes: int, before: DiskSpace) -> DiskSpace:
        """Check that the file is there, as somebody may have removed it to make room, and preallocate it again if the
        disk has room for twice its size. Return the space that is left.

        `reusable_bytes` is the size of the free pages in the database, which count as free space. `before` is the
        previous result: a disk that was full counts as ample only at twice the size of the reserve.
        """
        self.held = self._exists()
        if not self.held:
            self._refill()
        if self.held:
            return DiskSpace.AMPLE
        left = self._available() + reusable_bytes
        if left >= self._size_bytes * (1 if before is DiskSpace.AMPLE else 2):
            return DiskSpace.AMPLE
        return DiskSpace.LOW if left >= self._size_bytes // 4 else DiskSpace.CRITICAL

    def _exists(self) -> bool:
        try:
            return not self._size_bytes or self._path.stat().st_size == self._size_bytes
        except OSError:
            return False

    def _available(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _refill(self) -> None:
        if self._available() < 2 * self._size_bytes:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, DATA_MODE)
            try:
                _allocate(descriptor, self._size_bytes)
            finally:
                os.close(descriptor)
        except OSError:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        else:
            self.held = True


def _allocate(descriptor: int, size_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    block = bytes(1 << 20)  # macOS
    for start in range(0, size_bytes, len(block)):
        os.pwrite(descriptor, block[: size_bytes - start], start)
