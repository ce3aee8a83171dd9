"""The settings that must be equal on all replicas, because safety depends on them.

Replicas compare them in the handshake. They are sent as `name=value` pairs separated by spaces, and each end compares
the names that both ends send.
"""

import hashlib
from collections.abc import Collection

from paxos.types import NodeId

MAX_MEMBERS_CHARS = 160
"""Length above which the SHA-256 of the list of founding members is sent instead of the list."""


def compatibility_of(lease_ms: int, clock_drift_ppm: int, founders: Collection[NodeId]) -> str:
    """Return the `name=value` pairs that this replica sends in its handshake.

    The granter and the holder of a leader lease must agree on its length. Replicas whose data began with different
    `founders` belong to different clusters: their majorities need not intersect. A replica that joined later has no
    founders, and sends none.
    """
    lease = f"lease_ms={lease_ms} clock_drift_ppm={clock_drift_ppm}"
    if not founders:
        return lease
    members = ",".join(sorted(founders))
    if len(members) > MAX_MEMBERS_CHARS:
        members = hashlib.sha256(members.encode()).hexdigest()
    return f"members={members} {lease}"
