"""Clients that know what they may repeat: `Client` for asyncio, and `SyncClient` for everybody else."""

from kvstore.client.caller import ConnectionLostError, never_resend
from kvstore.client.client import DEFAULT_ENDPOINTS, Client
from kvstore.client.errors import (
    NO_SUCH_KEY,
    AnswerLost,
    ClientError,
    Compacted,
    ConditionFailed,
    Locked,
    LockLost,
    NoSuchLease,
    NoSuchMember,
    NotDone,
    Rejected,
    Unavailable,
    UnknownOutcome,
)
from kvstore.client.leases import Lease
from kvstore.client.locks import FencingToken, HeldLock, LockHolder
from kvstore.client.sync import SyncClient, SyncHeldLock, SyncLease
from kvstore.client.watch import WatchEvent

__all__ = [
    "DEFAULT_ENDPOINTS",
    "NO_SUCH_KEY",
    "AnswerLost",
    "Client",
    "ClientError",
    "Compacted",
    "ConditionFailed",
    "ConnectionLostError",
    "FencingToken",
    "HeldLock",
    "Lease",
    "LockHolder",
    "LockLost",
    "Locked",
    "NoSuchLease",
    "NoSuchMember",
    "NotDone",
    "Rejected",
    "SyncClient",
    "SyncHeldLock",
    "SyncLease",
    "Unavailable",
    "UnknownOutcome",
    "WatchEvent",
    "never_resend",
]
