"""Locks with a queue: the first client in the queue holds the lock until its lease ends."""

import asyncio
import time
from urllib.parse import quote

import msgspec

from kvstore.api.commands import Compare, Relation, Target
from kvstore.api.json.documents import AcquireRequest, LockAcquiredDocument, LockDocument
from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.clock import boot_time_s
from kvstore.client.errors import Locked, LockLost
from kvstore.client.leases import Lease

_WAIT_S = 10.0
"""Maximum waiting time of one request at a replica. The next request may go to another replica."""


class FencingToken(msgspec.Struct, frozen=True):
    """The fencing token of a holder of `lock`: `token` is greater than that of every earlier holder."""

    lock: bytes
    token: int

    @property
    def holds(self) -> Compare:
        """Condition for a transaction: the holder of this token still has the lock."""
        return Compare(self.lock, Target.FENCING_TOKEN, Relation.EQUAL, self.token)


class LockHolder(msgspec.Struct, frozen=True):
    """The present holder of a lock, or the leader of an election."""

    fence: FencingToken
    lease: int
    value: bytes


class HeldLock:
    """A lock that this client holds, with its fencing token and its lease."""

    def __init__(self, fence: FencingToken, lease: Lease) -> None:
        self.fence = fence
        self.lease = lease

    @property
    def lost(self) -> asyncio.Event:
        """Event that is set when the lease could not be renewed: stop relying on the lock."""
        return self.lease.lost


async def acquire(caller: Caller, name: bytes, lease: Lease, value: bytes, wait_s: float | None) -> FencingToken:
    """Acquire the lock for `lease` and return the fencing token. Raises Locked after `wait_s` seconds; None waits
    without limit. The queue entry is removed when the lease ends."""
    until = time.monotonic() + wait_s if wait_s is not None else float("inf")
    while True:
        request_wait_s = max(min(until - time.monotonic(), _WAIT_S), 0.0)
        body = AcquireRequest(lease=lease.id, value_base64=value, wait_s=request_wait_s)
        request = Request(
            "POST", _path(name), msgspec.json.encode(body), repeat=Repeat.HARMLESS, waits_s=request_wait_s
        )
        response = await caller.call(request, caller.deadline() + request_wait_s)
        entry = response.decode(LockAcquiredDocument)
        if entry.held:
            return FencingToken(name, entry.fence)
        if time.monotonic() >= until:
            lock = name.decode(errors="backslashreplace")
            raise Locked(
                f"lock {lock} is still held by another client after {wait_s:g} s: wait longer, or ask for its holder"
            )


async def give_full_ttl(caller: Caller, fence: FencingToken, lease: Lease, ttl_s: float) -> None:
    """Make the lease that holds the lock live for `ttl_s` seconds from now on, unless it has that TTL already. Raises
    LockLost, Locked or NoSuchLease if the lock was lost meanwhile."""
    if ttl_s <= lease.ttl_s:
        return
    asked_at = boot_time_s()
    body = msgspec.json.encode(AcquireRequest(lease=lease.id, ttl_s=ttl_s))
    response = await caller.call(Request("POST", _path(fence.lock), body, repeat=Repeat.HARMLESS))
    entry = response.decode(LockAcquiredDocument)
    if entry.fence != fence.token:
        lock = fence.lock.decode(errors="backslashreplace")
        raise LockLost(f"lock {lock} was released by another client: acquire it again", entry.fence)
    lease.lives_for(ttl_s, asked_at)


async def holder_of(caller: Caller, name: bytes) -> LockHolder | None:
    """Return the present holder of the lock; None when the lock is free."""
    response = await caller.call(Request("GET", _path(name)))
    holder = response.decode(LockDocument).holder
    if holder is None:
        return None
    return LockHolder(FencingToken(name, holder.fence), holder.lease, holder.value_bytes)


def _path(name: bytes) -> str:
    return f"/locks/{quote(name, safe='')}"
