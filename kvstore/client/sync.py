"""The blocking client: the methods of `kvstore.client.Client`, each of which waits for its result.

SyncClient runs a Client in an event loop in a thread of its own. Any number of threads may use one SyncClient; their
concurrent writes are batched like those of asyncio tasks.
"""

import builtins
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.client.client import DEFAULT_ENDPOINTS, Client
from kvstore.client.leases import Lease
from kvstore.client.locks import FencingToken, HeldLock
from kvstore.client.portal import Portal

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[SyncClient, P], T]":
    """Return `method` as a blocking method."""

    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.portal.call(partial(method, self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncGenerator[T, None]],
) -> "Callable[Concatenate[SyncClient, P], Generator[T, None, None]]":
    """Return `method` as a blocking method that returns a generator."""

    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self.portal.iterate(method(self.client, *args, **kwargs))

    return call


def _holding(
    method: Callable[Concatenate[Client, P], AbstractAsyncContextManager[HeldLock]],
) -> "Callable[Concatenate[SyncClient, P], AbstractContextManager[SyncHeldLock]]":
    """Return `method` as a blocking method that returns a context manager."""

    @contextmanager
    def hold(portal: Portal, manager: AbstractAsyncContextManager[HeldLock]) -> "Iterator[SyncHeldLock]":
        with portal.hold(manager) as held:
            yield SyncHeldLock(held.fence, SyncLease(portal, held.lease))

    @wraps(method)
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> "AbstractContextManager[SyncHeldLock]":
        return hold(self.portal, method(self.client, *args, **kwargs))

    return call


class SyncLease:
    """A client lease, see `kvstore.client.Lease`. `with` renews it during the block and revokes it at the end."""

    def __init__(self, portal: Portal, lease: Lease) -> None:
        self._portal = portal
        self._lease = lease
        self._renewed = ExitStack()
        self.id = lease.id
        self.ttl_s = lease.ttl_s
        self.lost = threading.Event()
        lease.on_lost(self.lost.set)

    def keep_alive(self) -> None:
        """Extend the lease to its full TTL from now. Raises NoSuchLease when it has ended."""
        self._portal.call(self._lease.keep_alive)

    def revoke(self) -> None:
        """End the lease and delete its keys. A lease that has ended already is no error."""
        self._portal.call(self._lease.revoke)

    def __enter__(self) -> Self:
        self._renewed.enter_context(self._portal.hold(self._lease.renewed()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renewed.close()


class SyncHeldLock:
    """A lock that this client holds. `lost` is set when its lease could not be renewed: stop relying on the lock."""

    def __init__(self, fence: FencingToken, lease: SyncLease) -> None:
        self.fence = fence
        self.lease = lease
        self.lost = lease.lost


class SyncClient:
    """A blocking client of the replicas at `endpoints`; see `kvstore.client.Client`. Use it in `with`, from any number
    of threads."""

    def __init__(
        self,
        endpoints: Sequence[str] = DEFAULT_ENDPOINTS,
        *,
        timeout_ms: int = 10_000,
        attempt_ms: int = 4_000,
        exactly_once: bool = True,
    ) -> None:
        self.portal = Portal("SyncClient")
        self.client = Client(endpoints, timeout_ms=timeout_ms, attempt_ms=attempt_ms, exactly_once=exactly_once)

    def __enter__(self) -> Self:
        self.portal.start()
        self.portal.call(self.client.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.portal.is_open:
            return
        try:
            self.portal.wait_for_cancelled()
            self.portal.call(partial(self.client.__aexit__, None, None, None))
        finally:
            self.portal.stop()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Base addresses of the replicas."""
        return self.client.endpoints

    get = _blocking(Client.get)
    put = _blocking(Client.put)
    delete = _blocking(Client.delete)
    delete_span = _blocking(Client.delete_span)
    txn = _blocking(Client.txn)
    list = _iterating(Client.list)
    watch = _iterating(Client.watch)
    revision = _blocking(Client.revision)
    lock = _holding(Client.lock)
    election = _holding(Client.election)
    holder = _blocking(Client.holder)
    leader = _blocking(Client.leader)
    ask = _blocking(Client.ask)
    status = _blocking(Client.status)
    members = _blocking(Client.members)
    members_at = _blocking(Client.members_at)
    add_member = _blocking(Client.add_member)
    remove_member = _blocking(Client.remove_member)
    replace_member = _blocking(Client.replace_member)
    promote_member = _blocking(Client.promote_member)
    backup = _iterating(Client.backup)

    def lease(self, ttl_s: float = 10.0) -> SyncLease:
        """Grant a lease of `ttl_s` seconds. Call its `keep_alive` and `revoke`, or use it in `with`."""
        return SyncLease(self.portal, self.portal.call(partial(self._grant, ttl_s)))

    def leases(self) -> "builtins.list[SyncLease]":
        """Return all leases of the store that have not ended."""
        return [SyncLease(self.portal, lease) for lease in self.portal.call(self.client.leases)]

    async def _grant(self, ttl_s: float) -> Lease:
        return await self.client.lease(ttl_s)
