"""Options of the protocol. The defaults are those of the product; the host passes its settings."""

import msgspec

from paxos.types import MS, GrantTerms, Time


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one replica: times in milliseconds, sizes in bytes or slots."""

    heartbeat_ms: int = 100
    """Interval at which a leader renews its lease."""
    lease_ms: int = 500
    """Length of a lease grant, before the correction for clock drift."""
    clock_drift_ppm: int = 10_000
    """Bound on the difference between the rates of two clocks, in parts per million."""
    election_jitter_ms: int = 150
    """Unit of the random delay before an attempt to become leader, and of the back-off after a failed attempt."""
    retransmit_ms: int = 200
    """Timeout after which an unanswered message is sent again. It doubles with each repetition of an Accept."""
    stall_ms: int = 1000
    """Time without progress after which a leader steps down (rule 19)."""
    window: int = 4
    """Slots that a leader has in flight at once. A small window makes larger batches: on two cores a window of 4 had
    the same throughput as 16 at 64 and 256 connections, and half the 99th percentile of the latency."""
    min_batch_bytes: int = 64 * 1024
    """Queued payload bytes that start a new slot whenever the window has room. Fewer bytes start a slot only if they
    are at least as many as the bytes in flight."""
    max_batch_bytes: int = 1 << 20
    """Limit of the payload bytes in one slot; a single payload may exceed it."""
    bulk_bytes: int = 256 * 1024
    """Size from which a payload is bulk, such as a value of a megabyte. Bulk payloads have a queue of their own, so
    that small payloads do not wait behind them."""
    max_bulk_bytes: int = 1 << 20
    """Limit of the bulk payload bytes in flight; a single payload may exceed it."""
    max_queued_bytes: int = 8 << 20
    """Limit of the payload bytes queued on the leader, which refuses further payloads at the limit."""
    page_bytes: int = 1 << 20
    """Limit of the value bytes in one Promise or Learn; a single value may exceed it."""
    recent_slots: int = 1024
    """Limit of the chosen slots that an acceptor keeps in memory for candidates that lag a little."""
    recent_bytes: int = 8 << 20
    """Limit of the value bytes of the chosen slots that an acceptor keeps in memory."""

    @property
    def lease_for_leader(self) -> Time:
        """Length of the lease for the leader, from the time of sending: shortened by the drift bound (rule 15)."""
        return self.lease_ms * (1_000_000 - self.clock_drift_ppm) * MS // 1_000_000

    @property
    def lease_for_acceptor(self) -> Time:
        """Length of the lease for an acceptor, from the time of receipt: lengthened by the drift bound (rule 15)."""
        return self.grant_terms.length

    @property
    def grant_terms(self) -> GrantTerms:
        """The settings that decide how long an acceptor grants a lease."""
        return GrantTerms(self.lease_ms, self.clock_drift_ppm)
