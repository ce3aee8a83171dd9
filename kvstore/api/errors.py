"""Reasons why a request is not answered as asked."""

from collections.abc import Sequence
from enum import StrEnum


class Outcome(StrEnum):
    """The effect of a request that was not answered as asked."""

    FAILED = "failed"
    """The request has no effect and never will have one."""
    UNKNOWN = "unknown"
    """The request may have been done, or may still be done (rule 23)."""


class Reason(StrEnum):
    """The reason why a request was not answered as asked."""

    NO_LEADER = "no-leader"
    """No leader was reached in time: fewer than a majority of the voters are up and connected."""
    TIMEOUT = "timeout"
    """The command was sent to the leader, and was not applied here in time."""
    OVERLOADED = "overloaded"
    """Too many requests are in progress on this replica."""
    QUEUED = "queued"
    """The command waited in the queue of this replica, behind other commands, until its timeout."""
    FULL = "full"
    """The store has reached its quota: only commands that do not enlarge it are taken."""
    DISK_FULL = "disk-full"
    """The disk of this replica is full: only commands that put no value are taken."""
    STOPPING = "stopping"
    """This replica is shutting down."""
    JOINING = "joining"
    """This replica has not received a snapshot yet."""
    WITNESS = "witness"
    """This replica is a witness: it votes and has no records."""
    REMOVED = "removed"
    """This replica was removed from the cluster."""


class Refused(Exception):
    """A request that was not answered as asked. The outcome of a read is always FAILED. If this replica can never
    answer, `instead` names replicas that can."""

    def __init__(self, reason: Reason, outcome: Outcome, instead: Sequence[str] = ()) -> None:
        super().__init__(f"{reason} ({outcome})")
        self.reason = reason
        self.outcome = outcome
        self.instead = instead
