"""From a request to its response: the route, the rules that hold for every request, errors and metrics.

    connection --- head -----> Dispatcher.admit --> the call of its route, or a problem that refuses it
               --- complete -> Dispatcher.begin --> ReplicaCall: asks the replica, no task
                                                    TaskCall: runs in a task
               <-- answered -- all replies of one turn of the event loop are answered together in the next turn

The CPU time of a request limits the throughput of a replica: docs/decisions/0008-http-server.md has the figures.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from kvstore.api.errors import Refused
from kvstore.server.http.body_rules import refuse_body
from kvstore.server.http.calls import ReplicaCall, TaskCall
from kvstore.server.http.conditions import refuse_conditions
from kvstore.server.http.content_coding import refuse_coding
from kvstore.server.http.cross_site import HostNames
from kvstore.server.http.in_flight import InFlight
from kvstore.server.http.limits import HttpLimits
from kvstore.server.http.problems import SAFE_METHODS, Problem, internal_error, refusal
from kvstore.server.http.received_bytes import ReceivedBytes
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_target import split_target
from kvstore.server.http.response import HttpResponse, StreamedResponse
from kvstore.server.metrics import Metrics

OTHER = "other"
"""Route of a path that does not exist, and method of a request without one, in the metrics."""
_NO_ROUTE = "malformed"
MAX_DOCUMENT_BYTES = 64 * 1024
"""Longest body of a call that is no write of keys: a lease, a lock or a member. A request may wait for a lock for a
minute with its body in memory."""

_log = logging.getLogger(__name__)


class Route(Protocol):
    """Function that makes the call of a request."""

    def __call__(self, request: HttpRequest, path: str, query: str) -> ReplicaCall | TaskCall:
        """Return the call of a request for `path`. Raises Problem."""


class ExchangeOwner(Protocol):
    """The connection of an exchange."""

    def answered(self) -> None:
        """Write the responses that are ready, if it is their turn."""


class Exchange:
    """One request and its response."""

    __slots__ = (
        "_dispatcher",
        "call",
        "held_bytes",
        "is_alone",
        "is_whole",
        "max_body_bytes",
        "owner",
        "reply",
        "request",
        "response",
        "route",
        "started",
        "takes_body",
    )

    def __init__(self, dispatcher: "Dispatcher", owner: ExchangeOwner, request: HttpRequest) -> None:
        self._dispatcher = dispatcher
        self.owner = owner
        self.request = request
        self.route = OTHER
        self.call: ReplicaCall | TaskCall | None = None
        """Handler of the request; None if the request was refused."""
        self.is_alone = False
        """True for a request that is the only one of its connection in progress."""
        self.takes_body = False
        """True for a request that cannot begin without its body."""
        self.is_whole = False
        """True once the body is complete."""
        self.max_body_bytes = 0
        """Longest body that the call takes."""
        self.held_bytes = 0
        """Bytes of the complete body that are counted in ReceivedBytes."""
        self.started = perf_counter()
        self.reply: Any = None
        self.response: HttpResponse | StreamedResponse | None = None

    def replied(self, reply: Any) -> None:
        """Take the reply of the replica, or an exception."""
        self.reply = reply
        self._dispatcher.replied(self)


class Dispatcher:
    """Dispatcher of the requests of all connections of one front end."""

    def __init__(
        self,
        find_route: Callable[[str], tuple[str, Route]],
        metrics: Metrics,
        in_flight: InFlight,
        limits: HttpLimits,
        names: HostNames,
    ) -> None:
        """`find_route` returns the route of a path, with its name for the metrics."""
        self._find_route = find_route
        self._metrics = metrics
        self._in_flight = in_flight
        self._limits = limits
        self._names = names
        self.received = ReceivedBytes(limits.max_received_bytes)
        self._replied: list[Exchange] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def admit(self, owner: ExchangeOwner, request: HttpRequest) -> Exchange:
        """Return the exchange of a request whose head is complete. It has a response already if the request is
        refused."""
        exchange = Exchange(self, owner, request)
        try:
            path, query = split_target(request.target)
            self._names.refuse(request)
            exchange.route, route = self._find_route(path)
            call = route(request, path, query)
            is_task = isinstance(call, TaskCall)
            if is_task and request.method not in SAFE_METHODS:
                refuse_conditions(request)
            if call.takes_body:
                exchange.max_body_bytes = MAX_DOCUMENT_BYTES if is_task else self._limits.max_value_bytes
                refuse_body(request, exchange.max_body_bytes)
                refuse_coding(request)
                exchange.takes_body = True
            exchange.call = call
            # RFC 9112, 9.3.2: only safe requests may be in progress together. A GET shall see the PUT before it.
            exchange.is_alone = is_task or request.method not in SAFE_METHODS
        except Exception as error:  # noqa: BLE001  whatever fails, the client gets a response
            self.finish(exchange, _problem(error, request).response(request.method))
        return exchange

    def hold_body(self, exchange: Exchange) -> None:
        """Count the body of a complete request until its response, or refuse the request."""
        size = len(exchange.request.body)
        try:
            self.received.take(size)
        except Problem as problem:
            self.refuse(exchange, problem)
        else:
            exchange.held_bytes = size

    def begin(self, exchange: Exchange) -> None:
        """Handle a complete request. Its connection is told of the response, but never before this returns."""
        call = exchange.call
        if isinstance(call, TaskCall):
            task = asyncio.get_running_loop().create_task(self._run(exchange, call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            self._in_flight.enter()
        except Problem as problem:
            self.refuse(exchange, problem)
            return
        if call is not None:
            try:
                call.ask(exchange.replied)
            except Exception as error:  # noqa: BLE001  see above
                exchange.replied(error)

    def refuse(self, exchange: Exchange, problem: Problem) -> None:
        """Respond with `problem` to a request that has not begun."""
        self.drop(exchange)
        self.finish(exchange, problem.response(exchange.request.method))

    def drop(self, exchange: Exchange) -> None:
        """Drop a request that has not begun."""
        self._release_body(exchange)
        exchange.call, exchange.takes_body = None, False

    def _release_body(self, exchange: Exchange) -> None:
        exchange.request.body = b""
        if exchange.held_bytes:
            self.received.give_back(exchange.held_bytes)
            exchange.held_bytes = 0

    def refuse_bytes(self, problem: Problem) -> HttpResponse:
        """Return the response to bytes that are no complete request, and count it in the metrics."""
        self._metrics.observe_request(OTHER, _NO_ROUTE, problem.kind.status, 0.0)
        return problem.response("UNKNOWN")

    def replied(self, exchange: Exchange) -> None:
        """Answer a request to which the replica has replied, in the next turn of the event loop."""
        if not self._replied:
            asyncio.get_running_loop().call_soon(self._answer)
        self._replied.append(exchange)

    async def stop(self) -> None:
        """Cancel all tasks and wait for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _answer(self) -> None:
        replied, self._replied = self._replied, []
        self._in_flight.leave(len(replied))
        now = perf_counter()
        for exchange in replied:
            self.finish(exchange, _response(exchange), now)
            exchange.owner.answered()

    async def _run(self, exchange: Exchange, call: TaskCall) -> None:
        try:
            response = await call.handle()
        except Exception as error:  # noqa: BLE001  see above
            response = _problem(error, exchange.request).response(exchange.request.method)
        self.finish(exchange, response)
        exchange.owner.answered()

    def finish(self, exchange: Exchange, response: HttpResponse | StreamedResponse, now: float | None = None) -> None:
        """Set the response of a request and count it in the metrics. Every response to a request is set here."""
        exchange.response = response
        if exchange.held_bytes:
            self._release_body(exchange)
        seconds = (now or perf_counter()) - exchange.started
        self._metrics.observe_request(exchange.request.method, exchange.route, response.status, seconds)


def _response(exchange: Exchange) -> HttpResponse:
    call, reply = exchange.call, exchange.reply
    try:
        if call is None or isinstance(call, TaskCall):
            raise TypeError(f"the replica was not asked for {call!r}")  # noqa: TRY301  answered like any other error
        if not isinstance(reply, Exception):
            return call.response_to(reply)
    except Exception as error:  # noqa: BLE001  see above
        reply = error
    return _problem(reply, exchange.request).response(exchange.request.method)


def _problem(error: Exception, request: HttpRequest) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, Refused):
        return refusal(error)
    _log.error("%s %.200s failed", request.method, request.target, exc_info=error)
    return internal_error()
