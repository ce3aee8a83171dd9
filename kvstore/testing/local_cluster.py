"""The cluster for tests, as a blocking and as an asyncio class. Both run a ProxiedCluster in a thread of its own."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.client import Client, SyncClient
from kvstore.client.portal import Portal
from kvstore.testing import fork_server
from kvstore.testing.proxied_cluster import ProxiedCluster

P = ParamSpec("P")
T = TypeVar("T")


class _AnyLocalCluster:
    """The common part of LocalCluster and AsyncLocalCluster."""

    def __init__(self, nodes: int = 3, settings: Mapping[str, int | str] | None = None) -> None:
        fork_server.ensure_running()  # it loads its modules in the background
        self._directory = tempfile.mkdtemp(prefix="kvstore-")
        self._remover = fork_server.remove_after_program(self._directory)
        self.portal = Portal(type(self).__name__)
        self.cluster = ProxiedCluster(nodes, Path(self._directory), settings or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the replicas: n1, n2, ..."""
        return self.cluster.names

    @property
    def endpoints(self) -> list[str]:
        """Base addresses of all replicas, for a client."""
        return self.cluster.processes.endpoints

    def endpoint(self, name: str) -> str:
        """Return the base address of one replica."""
        return self.cluster.processes.replicas[name].url

    def logs(self) -> str:
        """Return the last lines of the output of each replica."""
        return self.cluster.logs()

    def _end(self) -> None:
        self.portal.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._remover.kill()
        self._remover.wait()

    def _endpoints_of(self, names: tuple[str, ...]) -> list[str]:
        return [self.endpoint(name) for name in names] or self.endpoints


def _blocking(
    method: Callable[Concatenate[ProxiedCluster, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[LocalCluster, P], T]":
    """Return `method` as a blocking method of LocalCluster."""

    @wraps(method)
    def call(self: "LocalCluster", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.portal.call(partial(method, self.cluster, *args, **kwargs))

    return call


def _awaitable(
    method: Callable[Concatenate[ProxiedCluster, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[AsyncLocalCluster, P], Coroutine[Any, Any, T]]":
    """Return `method` as a method of AsyncLocalCluster, for the caller's event loop."""

    @wraps(method)
    async def call(self: "AsyncLocalCluster", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self.portal.submit(partial(method, self.cluster, *args, **kwargs)))

    return call


class LocalCluster(_AnyLocalCluster):
    """A cluster of `nodes` replicas n1, n2, ... with these `settings`. Use it in `with`, from any thread."""

    def __enter__(self) -> Self:
        self._clients = ExitStack()
        self.portal.start()
        try:
            self.portal.call(self.cluster.open)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.portal.is_forked:
            return  # the replicas belong to the other process
        if error is not None:
            error.add_note(self.logs())
        try:
            self._clients.close()
        finally:
            self.portal.call(self.cluster.close)
            self._end()

    def client(self, *names: str, timeout_ms: int = 10_000, exactly_once: bool = True) -> SyncClient:
        """Return a client of these replicas, of all by default. It is closed with the cluster."""
        client = SyncClient(self._endpoints_of(names), timeout_ms=timeout_ms, exactly_once=exactly_once)
        return self._clients.enter_context(client)

    kill = _blocking(ProxiedCluster.kill)
    pause = _blocking(ProxiedCluster.pause)
    resume = _blocking(ProxiedCluster.resume)
    restart = _blocking(ProxiedCluster.restart)
    partition = _blocking(ProxiedCluster.partition)
    heal = _blocking(ProxiedCluster.heal)
    wait_ready = _blocking(ProxiedCluster.wait_ready)
    leader = _blocking(ProxiedCluster.leader)
    revive = _blocking(ProxiedCluster.revive)
    clear = _blocking(ProxiedCluster.clear)

    def reset(self) -> None:
        """Restore the initial state, except the revision of the store: make all replicas ready, close all clients, and
        delete all keys, leases and locks."""
        self.revive()
        self._clients.close()
        self.clear()


class AsyncLocalCluster(_AnyLocalCluster):
    """LocalCluster for asyncio. Use it in `async with`."""

    async def __aenter__(self) -> Self:
        self._clients = AsyncExitStack()
        self.portal.start()
        try:
            await asyncio.wrap_future(self.portal.submit(self.cluster.open))
        except BaseException:
            await asyncio.to_thread(self._end)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.portal.is_forked:
            return  # as above
        if error is not None:
            error.add_note(self.logs())
        try:
            await self._clients.aclose()
        finally:
            await asyncio.wrap_future(self.portal.submit(self.cluster.close))
            await asyncio.to_thread(self._end)

    async def client(self, *names: str, timeout_ms: int = 10_000, exactly_once: bool = True) -> Client:
        """Return a client of these replicas, of all by default. It is closed with the cluster."""
        client = Client(self._endpoints_of(names), timeout_ms=timeout_ms, exactly_once=exactly_once)
        return await self._clients.enter_async_context(client)

    kill = _awaitable(ProxiedCluster.kill)
    pause = _awaitable(ProxiedCluster.pause)
    resume = _awaitable(ProxiedCluster.resume)
    restart = _awaitable(ProxiedCluster.restart)
    partition = _awaitable(ProxiedCluster.partition)
    heal = _awaitable(ProxiedCluster.heal)
    wait_ready = _awaitable(ProxiedCluster.wait_ready)
    leader = _awaitable(ProxiedCluster.leader)
    revive = _awaitable(ProxiedCluster.revive)
    clear = _awaitable(ProxiedCluster.clear)

    async def reset(self) -> None:
        """Restore the initial state, except the revision of the store: make all replicas ready, close all clients, and
        delete all keys, leases and locks."""
        await self.revive()
        await self._clients.aclose()
        await self.clear()
