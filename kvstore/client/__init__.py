"""Clients of the HTTP interface: `Client` for asyncio, and `SyncClient` for blocking code.

A client sends each request to the replica that answers fastest, tries the next replica when one fails, and retries a
write only where that is safe. The package imports `kvstore.api` and `kvstore.backup.stream`, nothing from the server.
"""

from kvstore.client.caller import ConnectionLostError, Repeat, Request, never_resend
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
    Response,
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
    "Repeat",
    "Request",
    "Response",
    "SyncClient",
    "SyncHeldLock",
    "SyncLease",
    "Unavailable",
    "UnknownOutcome",
    "WatchEvent",
    "never_resend",
]
