"""Conversion of the settings into the options of each package, and the check of the founding members."""

from kvstore.replica.retention import RetentionLimits
from kvstore.server.config import Settings
from kvstore.server.http.cross_site import HostNames
from kvstore.server.http.limits import HttpLimits
from paxos.options import Options
from storage.base import Recovered, StorageError, StoredIdentity


def options_of(settings: Settings) -> Options:
    """Return the options of the protocol."""
    return Options(
        heartbeat_ms=settings.heartbeat_ms,
        lease_ms=settings.lease_ms,
        clock_drift_ppm=settings.clock_drift_ppm,
        election_jitter_ms=settings.election_jitter_ms,
        retransmit_ms=2 * settings.heartbeat_ms,
        stall_ms=settings.stall_ms,
        window=settings.window,
        max_batch_bytes=settings.max_batch_bytes,
    )


def limits_of(settings: Settings) -> HttpLimits:
    """Return the limits of the HTTP front end."""
    return HttpLimits(max_value_bytes=settings.max_value_bytes, max_in_flight=settings.max_in_flight)


def host_names_of(settings: Settings) -> HostNames:
    """Return the names by which clients may address this replica."""
    hosts = {address.host for address in (*settings.members.values(), settings.listen, settings.peer_bind)}
    return HostNames(hosts, settings.public_names)


def retention_of(settings: Settings) -> RetentionLimits:
    """Return the retention limits of the log and of the history."""
    return RetentionLimits(
        log_slots=settings.log_slots,
        history_revisions=settings.history_revisions,
        history_age_ms=settings.history_age_ms,
    )


def leftover_warning(recovered: Recovered, settings: Settings) -> str | None:
    """Return a warning if the setting `bootstrap_without` is left over from the founding of the cluster; otherwise
    None."""
    founded = recovered.founding is not None and recovered.founding.complete
    if not settings.bootstrap_without or not (founded or recovered.progress.applied):
        return None
    names = ", ".join(settings.bootstrap_without)
    return (
        f"bootstrap_without names {names}, but the cluster of {settings.data} is founded: remove the setting from all "
        f"members, because members that lose their data would found a second cluster without {names}"
    )


def refuse_other_founders(identity: StoredIdentity, settings: Settings) -> None:
    """Raise StorageError if a replica that has not founded its cluster yet has other founding members than at its first
    start. Once it knows the membership, the members in the settings are only addresses."""
    if not identity.members or set(identity.members) == set(settings.members):
        return
    raise StorageError(
        f"{settings.data} was created to found a cluster of {','.join(identity.members)}, but the settings name "
        f"{','.join(sorted(settings.members))}: start this replica with those members, or delete the "
        "directory, which holds no data of a cluster, and restore it again if it was restored"
    )
