"""What each part of a replica takes of the settings."""

from kvstore.replica import retention
from kvstore.server.config import Settings
from kvstore.server.http.limits import Limits
from paxos.options import Options


def options_of(settings: Settings) -> Options:
    """The protocol's part of the settings."""
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


def limits_of(settings: Settings) -> Limits:
    """The front end's part of the settings."""
    return Limits(max_value_bytes=settings.max_value_bytes, max_in_flight=settings.max_in_flight)


def retention_of(settings: Settings) -> retention.Limits:
    """How much of the past is kept."""
    return retention.Limits(
        log_slots=settings.log_slots,
        history_revisions=settings.history_revisions,
        history_age_ms=settings.history_age_ms,
    )
