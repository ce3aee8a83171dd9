"""Client leases: the keys of a lease are deleted when it is revoked or expires."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Protocol

import msgspec

from kvstore.api.json.documents import GrantRequest, LeaseGrantedDocument, LeasePageDocument
from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.clock import boot_time_s
from kvstore.client.errors import ClientError, NoSuchLease

CLOCK_DRIFT = 0.01
"""Bound on the difference between the clock rates of this machine and a replica, the default of `clock_drift_ppm`. The
client counts a lease as over this much earlier, and the replicas wait as much longer."""


class AnyLease(Protocol):
    """A lease of the asyncio or of the blocking client."""

    @property
    def id(self) -> int:
        """Number of the lease."""


class Lease:
    """A client lease, which lives for `ttl_s` seconds from its grant or its last renewal.

    `lost` is set when an automatically renewed lease has ended, or could not be renewed for a whole TTL.
    """

    def __init__(self, caller: Caller, number: int, ttl_s: float, asked_at: float) -> None:
        """`asked_at` is the time of the request (`boot_time_s`), so that the lease expires later than the client
        assumes."""
        self._caller = caller
        self._on_renewed: list[Callable[[], None]] = []
        self._on_lost: list[Callable[[], None]] = []
        self.id = number
        self.ttl_s = ttl_s
        self.lives_until = _end_of(asked_at, ttl_s)
        """Time until which the lease lives at least, in seconds of `boot_time_s`."""
        self.lost = asyncio.Event()

    async def keep_alive(self) -> None:
        """Extend the lease to its full TTL from now. Raises NoSuchLease when it has ended."""
        await self._keep_alive(self._caller.deadline())

    async def revoke(self) -> None:
        """End the lease and delete its keys. A lease that has ended already is no error."""
        await self._revoke(self._caller.deadline())

    def lives_for(self, ttl_s: float, asked_at: float) -> None:
        """Record that a replica has given the lease the TTL `ttl_s`, from `asked_at` on (`boot_time_s`)."""
        self.ttl_s = ttl_s
        self.lives_until = _end_of(asked_at, ttl_s)
        for callback in self._on_renewed:
            callback()

    def on_renewed(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop of the client after each renewal."""
        self._on_renewed.append(callback)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop of the client when the lease is lost."""
        self._on_lost.append(callback)

    @asynccontextmanager
    async def renewed(self) -> AsyncGenerator[None, None]:
        """Renew the lease during the block, and revoke it at the end."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            with suppress(ClientError):  # the lease would also expire
                await self._revoke(min(self._deadline(), self._caller.deadline()))

    async def _renew(self) -> None:
        with suppress(ClientError):
            while True:
                await asyncio.sleep(self.ttl_s / 3)
                await self._keep_alive(self._deadline())
        self.lost.set()
        for callback in self._on_lost:
            callback()

    def _deadline(self) -> float:
        """Return the end of the lease as a deadline of a call."""
        return time.monotonic() + self.lives_until - boot_time_s()

    async def _revoke(self, deadline: float) -> None:
        with suppress(NoSuchLease):
            await self._caller.call(Request("DELETE", lease_path(self.id), repeat=Repeat.HARMLESS), deadline)

    async def _keep_alive(self, deadline: float) -> None:
        asked_at = boot_time_s()
        path = f"{lease_path(self.id)}/keepalive"
        await self._caller.call(Request("POST", path, repeat=Repeat.HARMLESS), deadline)
        self.lives_for(self.ttl_s, asked_at)


class PendingLease:
    """A lease that is not granted yet. `await` grants it; `async with` also renews it and revokes it at the end."""

    def __init__(self, grant_lease: Callable[[], Awaitable[Lease]]) -> None:
        self._grant = grant_lease
        self._renewed: AbstractAsyncContextManager[None] | None = None

    def __await__(self) -> Generator[None, None, Lease]:
        return self._grant().__await__()

    async def __aenter__(self) -> Lease:
        lease = await self._grant()
        self._renewed = lease.renewed()
        await self._renewed.__aenter__()
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewed is not None:
            await self._renewed.__aexit__(None, None, None)


async def grant(caller: Caller, ttl_s: float, deadline: float | None = None) -> Lease:
    """Grant a lease. The request may be repeated: a second lease, which no client knows, expires."""
    asked_at = boot_time_s()
    body = msgspec.json.encode(GrantRequest(ttl_s=ttl_s))
    response = await caller.call(Request("POST", "/leases", body, repeat=Repeat.HARMLESS), deadline)
    granted = response.decode(LeaseGrantedDocument)
    return Lease(caller, granted.id, granted.ttl_s, asked_at)


async def list_leases(caller: Caller) -> list[Lease]:
    """Return all leases of the store that have not ended."""
    leases: list[Lease] = []
    while True:
        asked_at = boot_time_s()
        after = leases[-1].id if leases else 0
        response = await caller.call(Request("GET", f"/leases?after={after}"))
        page = response.decode(LeasePageDocument)
        leases += [Lease(caller, each.id, each.ttl_s, asked_at) for each in page.leases]
        if not page.more:
            return leases


def _end_of(asked_at: float, ttl_s: float) -> float:
    return asked_at + ttl_s * (1 - CLOCK_DRIFT)


def lease_path(lease: int) -> str:
    """Return the path of the lease with this number."""
    return f"/leases/{lease}"
