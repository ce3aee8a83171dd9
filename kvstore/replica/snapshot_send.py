"""Sends the state of this replica to a peer that needs a snapshot, page by page.

The receiver asks for a page, stores it, and asks for the next one. The sender keeps no queue. It remembers only the
times of each receiver's requests, to defer compaction between the pages (see `kvstore.replica.snapshot_receive`).
"""

import zlib

import msgspec

from paxos.messages import FetchSnapshot, SnapshotPage
from paxos.types import MS, NodeId, Time
from storage.base import StatePage

MAX_PAGE_BYTES = 64 * 1024
"""Maximum bytes of keys and values in one page: the storage thread reads a page in milliseconds, between commits."""
IDLE_MS = 10_000
"""Time after a receiver's last request for which compaction waits for the receiver."""
MAX_WAIT_MS = 600_000
"""Longest time after a receiver's first request for which compaction waits for the receiver."""

_encode = msgspec.msgpack.Encoder().encode


def state_message(after: int, page: StatePage) -> SnapshotPage:
    """Return the answer to a request for the rows after position `after`."""
    rows = _encode(page.changes)
    end = _encode(page.progress) if page.progress is not None else b""
    return SnapshotPage(after, rows, page.compacted, end, zlib.crc32(rows))


class OutgoingSnapshots:
    """The receivers that are reading the state of this replica: peers, and backups."""

    def __init__(self) -> None:
        self._receivers: dict[NodeId, tuple[Time, Time]] = {}
        """Times of the first and of the last request, by receiver."""

    def requested(self, receiver: NodeId, message: FetchSnapshot, now: Time) -> None:
        """Record that `receiver` asks for a page. A request for the first page begins a new snapshot."""
        first, _ = self._receivers.get(receiver, (now, now))
        self._receivers[receiver] = (now if message.after == 0 else first, now)

    def ended(self, receiver: NodeId) -> None:
        """Record that `receiver` was sent the last page, or has stopped reading."""
        self._receivers.pop(receiver, None)

    def defer_compaction(self, now: Time) -> bool:
        """Return True while superseded records must stay in storage because a receiver reads the state."""
        return any(
            now - last < IDLE_MS * MS and now - first < MAX_WAIT_MS * MS for first, last in self._receivers.values()
        )
