"""Counters of one replica, read by the metrics."""

from collections import Counter


class NodeStats:
    """Numbers since the start of the process."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        """Messages from peers, by type."""
        self.sent: Counter[str] = Counter()
        """Messages to peers, by type."""
        self.reads: Counter[str] = Counter()
        """Reads, by the way in which the answer was known to be current."""
        self.leader_changes = 0
        self.snapshots_installed = 0
