"""What replicas must agree on before they exchange a message, because safety rests on it.

Terms travel as pairs, `name=value` with spaces between them, and are compared where both sides name them.
"""

import hashlib
from collections.abc import Collection

from kvstore.api.membership import Roster
from kvstore.server.config import Settings
from paxos.types import NodeId
from storage.base import Identity, StorageError

MAX_MEMBERS_CHARS = 160
"""Longest list of members that peers compare by its text, longer ones by their digest."""


def terms_of(settings: Settings, founders: Collection[NodeId]) -> str:
    """A lease must be as long for who grants it as for who holds it. And replicas whose data began with different
    members, `founders`, are no cluster: a majority of the ones need not meet a majority of the others. One that joined
    began with none, and is told by whomever it joins."""
    lease = f"lease_ms={settings.lease_ms} clock_drift_ppm={settings.clock_drift_ppm}"
    if not founders:
        return lease
    members = ",".join(sorted(founders))
    if len(members) > MAX_MEMBERS_CHARS:
        members = hashlib.sha256(members.encode()).hexdigest()
    return f"members={members} {lease}"


def refuse_other_founders(identity: Identity, settings: Settings, roster: Roster) -> None:
    """Raises StorageError where the members in the settings count, and are not those that the data began with. They
    count until the cluster has said for the first time who belongs to it: afterwards they are only addresses."""
    if roster.version or not identity.members or set(identity.members) == set(settings.members):
        return
    raise StorageError(
        f"{settings.data} began with the members {','.join(identity.members)}, but the settings name "
        f"{','.join(sorted(settings.members))}: start this replica with those that it began with; once the cluster "
        "runs, `kvstore member` changes them"
    )
