"""The settings that replicas must share before they exchange a message, because safety rests on them.

They travel as pairs, `name=value` with spaces between them, and each side compares the names that both sides send.
"""

import hashlib
from collections.abc import Collection

from paxos.types import NodeId

MAX_MEMBERS_CHARS = 160
"""Longest list of founding members that peers compare as text; they compare longer lists by SHA-256."""


def compatibility_of(lease_ms: int, clock_drift_ppm: int, founders: Collection[NodeId]) -> str:
    """Return the pairs that this replica sends in its handshake.

    The granter and the holder of a leader lease must agree on its length. Replicas whose data began with different
    `founders` form different clusters: their majorities need not intersect. A replica that joined has no founders and
    accepts those of the cluster that it joins.
    """
    lease = f"lease_ms={lease_ms} clock_drift_ppm={clock_drift_ppm}"
    if not founders:
        return lease
    members = ",".join(sorted(founders))
    if len(members) > MAX_MEMBERS_CHARS:
        members = hashlib.sha256(members.encode()).hexdigest()
    return f"members={members} {lease}"
