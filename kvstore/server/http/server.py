"""The front end of one replica: listens, hands each request on, and leaves without cutting one off."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter

from aiohttp import web

from kvstore.api.errors import Refused
from kvstore.server.http.backup import PATH as BACKUP
from kvstore.server.http.backup import Backups
from kvstore.server.http.connection import Connection, make_request
from kvstore.server.http.events import PATH as EVENTS
from kvstore.server.http.events import Events
from kvstore.server.http.foreign import refuse_foreign_pages
from kvstore.server.http.head import KEYS
from kvstore.server.http.kv import Keys
from kvstore.server.http.leases import PATH as LEASES
from kvstore.server.http.leases import Leases
from kvstore.server.http.limits import Limits
from kvstore.server.http.locks import PATH as LOCKS
from kvstore.server.http.locks import Locks
from kvstore.server.http.members import PATH as MEMBERS
from kvstore.server.http.members import Members
from kvstore.server.http.operations import Operations
from kvstore.server.http.problems import MALFORMED, Problem, internal_error, refusal
from kvstore.server.http.target import split
from kvstore.server.http.transactions import PATH as TXN
from kvstore.server.http.transactions import Transactions
from kvstore.server.http.turns import Turns
from kvstore.server.http.watch import PATH as WATCH
from kvstore.server.http.watch import Watches
from kvstore.server.metrics import Metrics
from kvstore.server.service import Replica

OTHER = "other"
"""The route of what is not there."""
BACKLOG = 1024
"""Connections that the kernel holds while the replica is busy; a burst above it is refused."""

IDLE_GRACE_MS = 500
"""How long a shutdown waits for the next request on a connection before it counts as idle and is closed."""

_CUT_S = 0.001
"""aiohttp waits this long twice before it cancels a request; 0 would mean for ever."""

_log = logging.getLogger(__name__)


class Frontend:
    """The HTTP server of `replica`. All of it belongs to the event loop in which it is started."""

    def __init__(self, replica: Replica, metrics: Metrics, limits: Limits | None = None) -> None:
        self._replica = replica
        self._metrics = metrics
        self._limits = limits or Limits()
        self._keys = Keys(replica, self._limits, self._is_stopping)
        self._turns = Turns(self._keys, metrics)
        self._transactions = Transactions(replica, self._limits, self._keys)
        self._leases = Leases(replica, self._limits, self._keys)
        self._locks = Locks(replica, self._limits, self._keys)
        self._watches = Watches(replica)
        self._events = Events(replica, metrics)
        self._members = Members(replica, self._limits)
        self._operations = Operations(replica, metrics, self._is_stopping)
        self._backups = Backups(replica, self._is_stopping)
        self._connections: set[Connection] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._stopping = False
        metrics.http_in_flight.set_function(lambda: self._keys.in_flight)

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port. Raises OSError that says what to do when it cannot."""
        loop = asyncio.get_running_loop()
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            where = f"cannot listen for clients on {host} port {port}: {error.strerror or error}"
            raise OSError(error.errno, f"{where}; stop what listens there or choose another address or port") from error
        self._socket.setblocking(False)
        self._server = web.Server(self._handle, request_factory=make_request)
        self._listener = await loop.create_server(self._connect, sock=self._socket)
        bound: int = self._socket.getsockname()[1]
        return bound

    async def stop(self, grace_ms: float) -> None:
        """Take no new connection, answer what is in flight, tell each client to go elsewhere; over after `grace_ms`.

        An answer on an open connection carries `Connection: close` from now on. A connection without a request is
        closed only after `IDLE_GRACE_MS`, so a client that is about to send one gets its answer. What clients had
        connected and sent before the listener closed is still served: the kernel would otherwise reset it.
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
        for connection in list(self._connections):
            connection.close_if_idle()
        await self._until_all_left(deadline)
        self._server.pre_shutdown()
        await self._server.shutdown(_CUT_S)

    async def _until_all_left(self, deadline: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._all_left.wait()

    async def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        # The loop of the standard library accepts in a reader and connects in a task of its own, which fails once the
        # listener is closed: no more of them from here on, and one turn for those that are there.
        loop.remove_reader(self._socket)
        await asyncio.sleep(0)
        waiting = _accept_all(self._socket)
        self._listener.close()
        for client in waiting:
            with suppress(OSError):  # it has left already
                await loop.connect_accepted_socket(self._connect, client)

    def _connect(self) -> Connection:
        connection = Connection(
            self._server,
            asyncio.get_running_loop(),
            self._limits,
            self._turns,
            stopping=self._is_stopping,
            on_malformed=lambda: self._metrics.observe_request("other", "malformed", 400, 0.0),
            on_lost=self._forget,
        )
        self._connections.add(connection)
        self._all_left.clear()
        return connection

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_left.set()

    def _is_stopping(self) -> bool:
        return self._stopping or self._replica.stopping

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = perf_counter()
        method = request.method
        route = OTHER
        answer: web.StreamResponse
        try:
            path, query = _target(request)
            refuse_foreign_pages(request)
            route, answering = self._dispatch(request, path, query)
            answer = await answering
        except Problem as problem:
            answer = problem.answer(method)
        except Refused as refused:
            answer = refusal(refused).answer(method)
        except Exception:  # noqa: BLE001  whatever it is, the client gets an answer and the log the cause
            _log.exception("%s %.200s failed", method, request.raw_path)
            answer = internal_error().answer(method)
        body = request.content
        if self._is_stopping() or not body.is_eof() or body.exception() is not None:
            answer.force_close()  # behind a body that was not read whole nobody knows where the next request begins
        self._metrics.observe_request(method, route, answer.status, perf_counter() - started)
        return answer

    def _dispatch(self, request: web.BaseRequest, path: str, query: str) -> tuple[str, Awaitable[web.StreamResponse]]:
        """Whose request it is, for the metrics, and what will answer it."""
        if path.startswith(KEYS):
            return KEYS, self._keys.answer(request, path[len(KEYS) :], query)
        if path == MEMBERS or path.startswith(MEMBERS + "/"):
            return MEMBERS, self._members.answer(request, path, query)
        if path == LEASES or path.startswith(LEASES + "/"):
            return LEASES, self._leases.answer(request, path, query)
        if path.startswith(LOCKS):
            return LOCKS, self._locks.answer(request, path[len(LOCKS) :], query)
        single: dict[str, Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]] = {
            TXN: self._transactions.answer,
            WATCH: self._watches.answer,
            EVENTS: self._events.answer,
            BACKUP: self._backups.answer,
        }
        if path in single:
            return path, single[path](request, query)
        return path if self._operations.knows(path) else OTHER, self._operations.answer(request, path, query)


def _target(request: web.BaseRequest) -> tuple[str, str]:
    if request.version.major != 1:
        raise Problem(MALFORMED, "Send the request with HTTP/1.1.")
    return split(request.raw_path)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    waiting = []
    with suppress(BlockingIOError):
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            waiting.append(client)
    return waiting
