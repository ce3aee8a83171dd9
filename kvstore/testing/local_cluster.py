"""The same cluster, for who waits and for asyncio."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.client import Client, SyncClient
from kvstore.client.portal import Portal
from kvstore.testing.breeding import shared
from kvstore.testing.proxied_cluster import Cluster

P = ParamSpec("P")
T = TypeVar("T")


class _Local:
    """What both have."""

    def __init__(self, nodes: int = 3, settings: Mapping[str, int | str] | None = None) -> None:
        shared()  # it loads while the rest is prepared
        self._directory = tempfile.TemporaryDirectory(prefix="kvstore-")
        shared().ask("tidy", self._directory.name)
        self.portal = Portal("kvstore-cluster")
        self.cluster = Cluster(nodes, Path(self._directory.name), settings or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Of the replicas: n1, n2, ..."""
        return self.cluster.names

    @property
    def endpoints(self) -> list[str]:
        """Base addresses of all replicas, for a client."""
        return self.cluster.supervised.endpoints

    def endpoint(self, name: str) -> str:
        """Base address of one replica."""
        return self.cluster.supervised.replicas[name].url

    def logs(self) -> str:
        """The end of what each replica has printed."""
        return self.cluster.logs()

    def _end(self) -> None:
        self.portal.stop()
        self._directory.cleanup()

    def _chosen(self, names: tuple[str, ...]) -> list[str]:
        return [self.endpoint(name) for name in names] or self.endpoints


def _waiting(
    method: Callable[Concatenate[Cluster, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[LocalCluster, P], T]":
    """`method`, for who waits."""

    @wraps(method)
    def call(self: "LocalCluster", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.portal.run(method(self.cluster, *args, **kwargs))

    return call


def _awaiting(
    method: Callable[Concatenate[Cluster, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[AsyncLocalCluster, P], Coroutine[Any, Any, T]]":
    """`method`, for another event loop."""

    @wraps(method)
    async def call(self: "AsyncLocalCluster", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self.portal.submit(method(self.cluster, *args, **kwargs)))

    return call


class LocalCluster(_Local):
    """`nodes` replicas n1, n2, ..., with these `settings`, while in `with`; any thread may use it."""

    def __enter__(self) -> Self:
        self._clients = ExitStack()
        self.portal.start()
        try:
            self.portal.run(self.cluster.open())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.logs())
        try:
            self._clients.close()
        finally:
            self.portal.run(self.cluster.close())
            self._end()

    def client(self, *names: str, timeout_ms: int = 10_000, exactly_once: bool = True) -> SyncClient:
        """A client of these replicas, of all by default; it is closed with the cluster."""
        client = SyncClient(self._chosen(names), timeout_ms=timeout_ms, exactly_once=exactly_once)
        return self._clients.enter_context(client)

    kill = _waiting(Cluster.kill)
    pause = _waiting(Cluster.pause)
    resume = _waiting(Cluster.resume)
    restart = _waiting(Cluster.restart)
    partition = _waiting(Cluster.partition)
    heal = _waiting(Cluster.heal)
    wait_ready = _waiting(Cluster.wait_ready)
    leader = _waiting(Cluster.leader)
    revive = _waiting(Cluster.revive)
    clear = _waiting(Cluster.clear)

    def reset(self) -> None:
        """As it was at first, but for its revision: all replicas serve, and there is no key, no lease, no lock, and no
        client."""
        self.revive()
        self._clients.close()
        self.clear()


class AsyncLocalCluster(_Local):
    """The same for asyncio, while in `async with`."""

    async def __aenter__(self) -> Self:
        self._clients = AsyncExitStack()
        self.portal.start()
        try:
            await asyncio.wrap_future(self.portal.submit(self.cluster.open()))
        except BaseException:
            await asyncio.to_thread(self._end)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.logs())
        try:
            await self._clients.aclose()
        finally:
            await asyncio.wrap_future(self.portal.submit(self.cluster.close()))
            await asyncio.to_thread(self._end)

    async def client(self, *names: str, timeout_ms: int = 10_000, exactly_once: bool = True) -> Client:
        """A client of these replicas, of all by default; it is closed with the cluster."""
        client = Client(self._chosen(names), timeout_ms=timeout_ms, exactly_once=exactly_once)
        return await self._clients.enter_async_context(client)

    kill = _awaiting(Cluster.kill)
    pause = _awaiting(Cluster.pause)
    resume = _awaiting(Cluster.resume)
    restart = _awaiting(Cluster.restart)
    partition = _awaiting(Cluster.partition)
    heal = _awaiting(Cluster.heal)
    wait_ready = _awaiting(Cluster.wait_ready)
    leader = _awaiting(Cluster.leader)
    revive = _awaiting(Cluster.revive)
    clear = _awaiting(Cluster.clear)

    async def reset(self) -> None:
        """As it was at first, but for its revision: all replicas serve, and there is no key, no lease, no lock, and no
        client."""
        await self.revive()
        await self._clients.aclose()
        await self.clear()
