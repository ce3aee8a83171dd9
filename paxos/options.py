"""The knobs of the protocol. Defaults are those of the product; the host hands in its settings."""

import msgspec

from paxos.types import MS, Time


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Times in milliseconds, sizes in bytes or slots."""

    heartbeat_ms: int = 100
    """Interval at which a leader renews its lease."""
    lease_ms: int = 500
    """Length of a grant, before drift."""
    clock_drift_ppm: int = 10_000
    """Bound on how much the rates of two clocks differ, in parts per million."""
    election_jitter_ms: int = 150
    """Unit of the random delay before a candidacy, and of its back-off."""
    retransmit_ms: int = 200
    """Wait for an answer before asking again; doubles with each repetition of an Accept."""
    stall_ms: int = 1000
    """A leader whose oldest proposal is older than this steps down (rule 19)."""
    window: int = 4
    """Slots that a leader has under way at once. Fewer make fuller slots: on two cores 4 had the throughput of 16 at 64
    and 256 connections, and half its 99th percentile."""
    min_batch_bytes: int = 64 * 1024
    """So many payload bytes are worth a slot, however much is under way."""
    max_batch_bytes: int = 1 << 20
    """Payload bytes in one slot; a single payload may exceed it."""
    max_queued_bytes: int = 8 << 20
    """Payload bytes that wait for a slot on the leader; beyond them it takes no more until there is room."""
    page_bytes: int = 1 << 20
    """Value bytes in one Promise or Learn; a single value may exceed it."""
    recent_slots: int = 1024
    """Chosen slots that an acceptor keeps at hand for candidates that lag a little."""
    recent_bytes: int = 8 << 20
    """Bound on the values of those slots."""

    @property
    def lease_for_leader(self) -> Time:
        """Length that a leader may rely on, counted from its send time: shortened by the drift bound (rule 15)."""
        return self.lease_ms * (1_000_000 - self.clock_drift_ppm) * MS // 1_000_000

    @property
    def lease_for_acceptor(self) -> Time:
        """Length that an acceptor keeps, counted from receipt: lengthened by the drift bound (rule 15)."""
        return self.lease_ms * (1_000_000 + self.clock_drift_ppm) * MS // 1_000_000
