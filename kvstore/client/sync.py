"""The client without asyncio: the same calls, each of which waits for its answer.

All of it is `kvstore.client.Client`, in an event loop of its own; here each method is only made to wait. Any thread may
use it, and writes of threads that wait at the same time go together, as those of tasks do.
"""

import builtins
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.client.client import DEFAULT_ENDPOINTS, Client
from kvstore.client.leases import Lease
from kvstore.client.locks import FencingToken, HeldLock
from kvstore.client.portal import Portal

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[SyncClient, P], T]":
    """`method`, for who waits for what it gives."""

    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.portal.run(method(self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncGenerator[T, None]],
) -> "Callable[Concatenate[SyncClient, P], Generator[T, None, None]]":
    """`method`, for `for`."""

    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self.portal.iterate(method(self.client, *args, **kwargs))

    return call


def _holding(
    method: Callable[Concatenate[Client, P], AbstractAsyncContextManager[HeldLock]],
) -> "Callable[Concatenate[SyncClient, P], AbstractContextManager[SyncHeldLock]]":
    """`method`, for `with`."""

    @contextmanager
    def hold(portal: Portal, manager: AbstractAsyncContextManager[HeldLock]) -> "Iterator[SyncHeldLock]":
        with portal.hold(manager) as held:
            yield SyncHeldLock(held.fence, SyncLease(portal, held.lease))

    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> "AbstractContextManager[SyncHeldLock]":
        return hold(self.portal, method(self.client, *args, **kwargs))

    return call


class SyncLease:
    """`kvstore.client.Lease`, for who waits. In `with` it is kept alive, and revoked at the end."""

    def __init__(self, portal: Portal, lease: Lease) -> None:
        self._portal = portal
        self._lease = lease
        self._renewed = ExitStack()
        self.id = lease.id
        self.ttl_s = lease.ttl_s
        self.lost = threading.Event()
        lease.on_lost(self.lost.set)

    def keep_alive(self) -> None:
        """It lives for its whole length from now on. Raises NoSuchLease when it is over."""
        self._portal.run(self._lease.keep_alive())

    def revoke(self) -> None:
        """End it, with all that hangs on it; it may be over already."""
        self._portal.run(self._lease.revoke())

    def __enter__(self) -> Self:
        self._renewed.enter_context(self._portal.hold(self._lease.renewed()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renewed.close()


class SyncHeldLock:
    """A lock that is held. `lost` is set when it cannot be relied on any more: its lease could not be renewed."""

    def __init__(self, fence: FencingToken, lease: SyncLease) -> None:
        self.fence = fence
        self.lease = lease
        self.lost = lease.lost


class SyncClient:
    """`kvstore.client.Client` for who has no event loop; see there. Use it in `with`, from any number of threads."""

    def __init__(
        self,
        endpoints: Sequence[str] = DEFAULT_ENDPOINTS,
        *,
        timeout_ms: int = 10_000,
        attempt_ms: int = 4_000,
        exactly_once: bool = True,
    ) -> None:
        self.portal = Portal("kvstore-client")
        self.client = Client(endpoints, timeout_ms=timeout_ms, attempt_ms=attempt_ms, exactly_once=exactly_once)

    def __enter__(self) -> Self:
        self.portal.start()
        self.portal.run(self.client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.portal.run(self.client.__aexit__(None, None, None))
        finally:
            self.portal.stop()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Whom it talks to."""
        return self.client.endpoints

    get = _waiting(Client.get)
    put = _waiting(Client.put)
    delete = _waiting(Client.delete)
    delete_span = _waiting(Client.delete_span)
    txn = _waiting(Client.txn)
    list = _iterating(Client.list)
    watch = _iterating(Client.watch)
    revision = _waiting(Client.revision)
    lock = _holding(Client.lock)
    election = _holding(Client.election)
    holder = _waiting(Client.holder)
    leader = _waiting(Client.leader)
    ask = _waiting(Client.ask)
    status = _waiting(Client.status)
    members = _waiting(Client.members)
    members_at = _waiting(Client.members_at)
    add_member = _waiting(Client.add_member)
    remove_member = _waiting(Client.remove_member)
    replace_member = _waiting(Client.replace_member)
    promote_member = _waiting(Client.promote_member)
    backup = _iterating(Client.backup)

    def lease(self, ttl_s: float = 10.0) -> SyncLease:
        """A lease of `ttl_s` seconds, to keep alive and revoke by oneself, or in `with`."""
        return SyncLease(self.portal, self.portal.run(self._grant(ttl_s)))

    def leases(self) -> "builtins.list[SyncLease]":
        """All that live."""
        return [SyncLease(self.portal, lease) for lease in self.portal.run(self.client.leases())]

    async def _grant(self, ttl_s: float) -> Lease:
        return await self.client.lease(ttl_s)
