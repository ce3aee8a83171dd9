"""The HTTP front end of one replica: it listens, routes each request, and stops without losing one."""

import asyncio
import socket
from contextlib import suppress

from kvstore.peers.listener import listening_socket
from kvstore.server.http import backup, events, leases, locks, members, transactions, watch
from kvstore.server.http.connection import HttpConnection
from kvstore.server.http.cross_site import HostNames
from kvstore.server.http.dispatcher import OTHER, Dispatcher, Route
from kvstore.server.http.in_flight import InFlight
from kvstore.server.http.keys import PATH as KEYS
from kvstore.server.http.keys import KeyHandlers
from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.lists import KeyListHandlers
from kvstore.server.http.status_pages import StatusPages
from kvstore.server.metrics import Metrics
from kvstore.server.service import ReplicaService

IDLE_GRACE_MS = 500
"""Time for which a shutdown waits for a request on an idle connection, before the connection is closed."""


class Frontend:
    """The HTTP server of `replica`. It belongs to the event loop in which it is started."""

    def __init__(
        self,
        replica: ReplicaService,
        metrics: Metrics,
        limits: HttpLimits | None = None,
        names: HostNames | None = None,
    ) -> None:
        self._replica = replica
        self._limits = limits or HttpLimits()
        in_flight = InFlight(self._limits.max_in_flight)
        self._keys: Route = KeyHandlers(replica, KeyListHandlers(replica, self._is_stopping)).route
        self._locks = locks.LockHandlers(replica, in_flight)
        self._watches = watch.WatchHandlers(replica)
        self._events = events.EventHandlers(replica, metrics)
        self._status_pages = StatusPages(replica, metrics, self._is_stopping)
        member_route, lease_route = (
            members.MemberHandlers(replica).route,
            leases.LeaseHandlers(replica, in_flight).route,
        )
        self._paths: dict[str, Route] = {
            backup.PATH: backup.BackupHandlers(replica, self._is_stopping).route,
            events.PATH: self._events.route,
            leases.PATH: lease_route,
            members.PATH: member_route,
            transactions.PATH: transactions.TransactionHandlers(replica).route,
            watch.PATH: self._watches.route,
        }
        """The routes of single paths."""
        self._folders: dict[str, Route] = {
            KEYS: self._keys,
            leases.PATH: lease_route,
            locks.PATH: self._locks.route,
            members.PATH: member_route,
        }
        """The routes of all paths below a path. The path here names the route in the metrics."""
        self._dispatcher = Dispatcher(self._find_route, metrics, in_flight, self._limits, names or HostNames())
        self._connections: set[HttpConnection] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._stopping = False
        metrics.http_in_flight.set_function(lambda: in_flight.count)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; 0 selects a free one. Raises OSError if that fails."""
        loop = asyncio.get_running_loop()
        try:
            self._socket = listening_socket(host, port)
        except OSError as error:
            where = f"cannot listen for clients on {host} port {port}: {error.strerror or error}"
            raise OSError(
                error.errno, f"{where}; stop the program that listens there, or choose another address or port"
            ) from error
        self._listener = await loop.create_server(self._connect, sock=self._socket)
        bound: int = self._socket.getsockname()[1]
        return bound

    async def stop(self, grace_ms: float) -> None:
        """Accept no new connections, answer the requests in progress, and close all connections after `grace_ms` at
        most.

        Every response has `Connection: close` from now on. A connection without a request is closed after
        `IDLE_GRACE_MS`, so that a client that is about to send one gets its response. Connections in the queue of the
        kernel are accepted and served: the kernel would reset them otherwise.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_ms / 1000
        if not self._stopping:
            self._stopping = True
            self._watches.end()
            self._locks.end()
            self._events.end()
            await self._stop_listening()
        await self._until_all_left(min(deadline, loop.time() + IDLE_GRACE_MS / 1000))
        for _ in range(2):
            await asyncio.sleep(0)  # receives the requests that are in the kernel already
        for connection in list(self._connections):
            connection.close_if_idle()
        await self._until_all_left(deadline)
        for connection in list(self._connections):
            connection.abort()
        await self._dispatcher.stop()

    async def _until_all_left(self, deadline: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._all_left.wait()

    async def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        # asyncio accepts in a reader callback and creates the connection in a task, which fails once the listener is
        # closed. So the callback is removed, and the tasks that exist get one turn of the loop.
        loop.remove_reader(self._socket)
        await asyncio.sleep(0)
        waiting = _accept_all(self._socket)
        self._listener.close()
        for client in waiting:
            with suppress(OSError):  # the client has left already
                await loop.connect_accepted_socket(self._connect, client)

    def _connect(self) -> HttpConnection:
        connection = HttpConnection(self._dispatcher, self._limits, stopping=self._is_stopping, on_lost=self._forget)
        self._connections.add(connection)
        self._all_left.clear()
        return connection

    def _forget(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_left.set()

    def _is_stopping(self) -> bool:
        return self._stopping or self._replica.stopping

    def _find_route(self, path: str) -> tuple[str, Route]:
        """Return the name of the route of `path` for the metrics, and the route."""
        if path.startswith(KEYS):
            return KEYS, self._keys
        if path in self._paths:
            return path, self._paths[path]
        for folder, route in self._folders.items():
            if path.startswith(folder.rstrip("/") + "/"):
                return folder, route
        return path if self._status_pages.knows(path) else OTHER, self._status_pages.route


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    waiting = []
    with suppress(BlockingIOError):
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            waiting.append(client)
    return waiting
