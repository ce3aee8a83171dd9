"""Leases: what hangs on one goes with it, unless it is kept alive."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Protocol

import msgspec

from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.errors import ClientError, NoSuchLease


class _LeaseDocument(msgspec.Struct):
    id: int
    ttl_s: float


class _LeaseListDocument(msgspec.Struct):
    leases: list[_LeaseDocument]
    more: bool


class AnyLease(Protocol):
    """A lease of any client."""

    @property
    def id(self) -> int:
        """Its number."""


class Lease:
    """Lives for `ttl_s` seconds from when it was granted or last kept alive. `lost` is set when it is over, for all
    that is known here, though it was to be renewed."""

    def __init__(self, caller: Caller, number: int, ttl_s: float, asked_at: float) -> None:
        """`asked_at`: when it was asked for, which is earlier than when it was granted."""
        self._caller = caller
        self._lives_until = asked_at + ttl_s
        self._hearers: list[Callable[[], None]] = []
        self.id = number
        self.ttl_s = ttl_s
        self.lost = asyncio.Event()

    async def keep_alive(self) -> None:
        """It lives for its whole length from now on. Raises NoSuchLease when it is over."""
        await self._keep_alive(self._caller.deadline())

    async def revoke(self) -> None:
        """End it, with all that hangs on it; it may be over already."""
        await self._revoke(self._caller.deadline())

    def on_lost(self, hear: Callable[[], None]) -> None:
        """Call `hear` in the client's event loop when it is lost."""
        self._hearers.append(hear)

    @asynccontextmanager
    async def renewed(self) -> AsyncGenerator[None, None]:
        """It is kept alive meanwhile, and revoked at the end."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            with suppress(ClientError):  # it ends by itself
                await self._revoke(min(self._lives_until, self._caller.deadline()))

    async def _renew(self) -> None:
        with suppress(ClientError):
            while True:
                await asyncio.sleep(self.ttl_s / 3)
                await self._keep_alive(self._lives_until)
        self.lost.set()
        for hear in self._hearers:
            hear()

    async def _revoke(self, deadline: float) -> None:
        with suppress(NoSuchLease):
            await self._caller.call(Request("DELETE", lease_path(self.id), repeat=Repeat.HARMLESS), deadline)

    async def _keep_alive(self, deadline: float) -> None:
        asked_at = time.monotonic()
        path = f"{lease_path(self.id)}/keepalive"
        await self._caller.call(Request("POST", path, repeat=Repeat.HARMLESS), deadline)
        self._lives_until = asked_at + self.ttl_s


class PendingLease:
    """A lease that is asked for: by `await`; or by `async with`, which keeps it alive and revokes it at the end."""

    def __init__(self, ask: Callable[[], Awaitable[Lease]]) -> None:
        self._ask = ask
        self._renewed: AbstractAsyncContextManager[None] | None = None

    def __await__(self) -> Generator[None, None, Lease]:
        return self._ask().__await__()

    async def __aenter__(self) -> Lease:
        lease = await self._ask()
        self._renewed = lease.renewed()
        await self._renewed.__aenter__()
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewed is not None:
            await self._renewed.__aexit__(None, None, None)


async def grant(caller: Caller, ttl_s: float, deadline: float | None = None) -> Lease:
    """A new lease. It may be asked for twice: one that nobody knows of ends by itself."""
    asked_at = time.monotonic()
    body = msgspec.json.encode({"ttl_s": ttl_s})
    answer = await caller.call(Request("POST", "/leases", body, repeat=Repeat.HARMLESS), deadline)
    granted = msgspec.json.decode(answer.body, type=_LeaseDocument)
    return Lease(caller, granted.id, granted.ttl_s, asked_at)


async def list_leases(caller: Caller) -> list[Lease]:
    """All that live."""
    leases: list[Lease] = []
    while True:
        asked_at = time.monotonic()
        after = leases[-1].id if leases else 0
        answer = await caller.call(Request("GET", f"/leases?after={after}"))
        found = msgspec.json.decode(answer.body, type=_LeaseListDocument)
        leases += [Lease(caller, each.id, each.ttl_s, asked_at) for each in found.leases]
        if not found.more:
            return leases


def lease_path(lease: int) -> str:
    """Where the lease of this number is."""
    return f"/leases/{lease}"
