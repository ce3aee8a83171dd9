"""The ways in which a request can end without its answer."""

from collections.abc import Sequence
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a request that was not answered as asked."""

    FAILED = "failed"
    """It left no trace and never will."""
    UNKNOWN = "unknown"
    """It may have been done, or may yet be done (rule 23)."""


class Reason(StrEnum):
    """Why a request was not answered as asked."""

    NO_LEADER = "no-leader"
    """No leader was reached in time: fewer than a majority of the replicas are up and connected."""
    TIMEOUT = "timeout"
    """The command is on its way, but was not seen applied in time."""
    OVERLOADED = "overloaded"
    """Too many requests are in flight on this replica."""
    FULL = "full"
    """The store has reached its quota: only what makes it smaller is taken."""
    STOPPING = "stopping"
    """This replica is shutting down."""
    JOINING = "joining"
    """This replica was not given the state yet."""
    WITNESS = "witness"
    """This replica votes and has no state."""
    REMOVED = "removed"
    """This replica is not a member any more."""


class Refused(Exception):
    """A request ended without its answer. For a read the outcome is always FAILED. `instead`: other replicas, where
    this one never will answer."""

    def __init__(self, reason: Reason, outcome: Outcome, instead: Sequence[str] = ()) -> None:
        super().__init__(f"{reason} ({outcome})")
        self.reason = reason
        self.outcome = outcome
        self.instead = instead
