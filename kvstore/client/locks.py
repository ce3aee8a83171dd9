"""Locks: who comes first has one, for as long as its lease lives."""

import asyncio
import time
from base64 import b64encode
from urllib.parse import quote

import msgspec

from kvstore.api.commands import Compare, Relation, Target
from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.errors import Locked
from kvstore.client.leases import Lease

_TURN_S = 10.0
"""So long one replica is waited at, then perhaps another one."""


class FencingToken(msgspec.Struct, frozen=True):
    """What a holder of `lock` writes with: `token` is greater than that of every earlier holder."""

    lock: bytes
    token: int

    @property
    def holds(self) -> Compare:
        """For a transaction: that it holds the lock still."""
        return Compare(self.lock, Target.FENCE, Relation.EQUAL, self.token)


class LockHolder(msgspec.Struct, frozen=True):
    """Who has a lock, or leads."""

    fence: FencingToken
    lease: int
    value: bytes


class HeldLock:
    """A lock that is held. `lost` is set when it cannot be relied on any more: its lease could not be renewed."""

    def __init__(self, fence: FencingToken, lease: Lease) -> None:
        self.fence = fence
        self.lease = lease

    @property
    def lost(self) -> asyncio.Event:
        """Of its lease."""
        return self.lease.lost


class _QueueEntryDocument(msgspec.Struct):
    fence: int
    held: bool


class _HolderDocument(msgspec.Struct):
    lease: int
    fence: int
    value: str | None = None
    value_base64: bytes = b""


class _LockDocument(msgspec.Struct):
    holder: _HolderDocument | None


async def acquire(caller: Caller, name: bytes, lease: Lease, value: bytes, wait_s: float | None) -> FencingToken:
    """Take the lock for `lease`, when it is free; None waits for as long as that takes. Raises Locked. The place in the
    queue goes with the lease."""
    until = time.monotonic() + wait_s if wait_s is not None else float("inf")
    while True:
        turn_s = max(min(until - time.monotonic(), _TURN_S), 0.0)
        body = {"lease": lease.id, "value_base64": b64encode(value).decode(), "wait_s": turn_s}
        request = Request("POST", _path(name), msgspec.json.encode(body), repeat=Repeat.HARMLESS, waits_s=turn_s)
        answer = await caller.call(request, caller.deadline() + turn_s)
        placed = msgspec.json.decode(answer.body, type=_QueueEntryDocument)
        if placed.held:
            return FencingToken(name, placed.fence)
        if time.monotonic() >= until:
            lock = name.decode(errors="backslashreplace")
            raise Locked(f"others have the lock {lock} still, after {wait_s:g} s: wait longer, or see who holds it")


async def holder_of(caller: Caller, name: bytes) -> LockHolder | None:
    """Who has it now."""
    answer = await caller.call(Request("GET", _path(name)))
    holder = msgspec.json.decode(answer.body, type=_LockDocument).holder
    if holder is None:
        return None
    value = holder.value.encode() if holder.value is not None else holder.value_base64
    return LockHolder(FencingToken(name, holder.fence), holder.lease, value)


def _path(name: bytes) -> str:
    return f"/locks/{quote(name, safe='')}"
