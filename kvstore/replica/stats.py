"""Counters of one replica, read by the metrics."""

from collections import Counter


class NodeStats:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        """Messages from peers, by type."""
        self.sent: Counter[str] = Counter()
        """Messages to peers, by type."""
        self.reads: Counter[str] = Counter()
        """Answered reads, by "stale" or the proof that the answer is current: "lease", "quorum" or "read_index"."""
        self.leader_changes = 0
        self.snapshots_installed = 0
