"""The settings that must be equal on all replicas, and the restored state, because safety depends on them.

Replicas compare them in the handshake. They are sent as `name=value` pairs separated by spaces, and each end compares
the names that both ends send.
"""

import hashlib
from collections.abc import Collection

from paxos.types import NodeId

MAX_MEMBERS_CHARS = 160
"""Length above which the SHA-256 of the list of founding members is sent instead of the list."""


RESTORED = "restored"
"""Name of the pair with the mark of the restored state with which the cluster began."""


def compatibility_of(lease_ms: int, clock_drift_ppm: int, founders: Collection[NodeId], restored: str = "") -> str:
    """Return the `name=value` pairs that this replica sends in its handshake.

    The granter and the holder of a leader lease must agree on its length. Replicas whose data began with different
    `founders` belong to different clusters: their majorities need not intersect. A replica that joined later has no
    founders, and sends none. Replicas of clusters that began with different restored states, whose marks are
    `restored`, have different data at the same slots. Data of a cluster that began without data has no mark, and
    restored data has none before its cluster is founded: the founding compares the marks of such data (rule 30), and a
    cluster that exists replaces it.
    """
    pairs = f"lease_ms={lease_ms} clock_drift_ppm={clock_drift_ppm}"
    if restored:
        pairs = f"{pairs} {RESTORED}={restored}"
    if not founders:
        return pairs
    members = ",".join(sorted(founders))
    if len(members) > MAX_MEMBERS_CHARS:
        members = hashlib.sha256(members.encode()).hexdigest()
    return f"members={members} {pairs}"


def differing(theirs: str, ours: str) -> dict[str, tuple[str, str]]:
    """Return the names that both strings name with different values, each with the two values."""
    there, here = (dict(pair.split("=", 1) for pair in pairs.split() if "=" in pair) for pairs in (theirs, ours))
    return {name: (value, here[name]) for name, value in there.items() if here.get(name, value) != value}
