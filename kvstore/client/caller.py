"""Sends one request to the replicas, one replica after the other.

A request goes to one replica. If that replica certainly did not execute it, the request goes to the next replica; after
the last one, further rounds follow with growing random pauses until the deadline. Reads are always repeated. A write of
unknown outcome is repeated only where that is safe, see `Repeat`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from io import BytesIO
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

import aiohttp
import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_random_exponential
from yarl import URL

from kvstore.client.endpoints import Endpoints
from kvstore.client.errors import (
    AnswerLost,
    ConditionFailed,
    IdempotencyKeyExpired,
    LockLost,
    Method,
    NotDone,
    Rejected,
    Response,
    Unavailable,
    UnknownOutcome,
    accept,
    fail,
)

CONNECT_MS = 1000
"""Timeout of a connection attempt; then the next replica is asked."""

STREAM_MS = 30_000
"""A stream on which nothing arrives for this time is broken."""

_DECIDES_EARLIER_ATTEMPTS = (ConditionFailed, LockLost)
"""Refusals that replicas store under the idempotency key: they also answer the earlier attempts of the same write."""


class ConnectionLostError(Exception):
    """The connection broke after the request may have been sent."""


async def never_resend(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide a broken connection from aiohttp, which would send a PUT or DELETE a second time on its own."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLostError(str(error) or type(error).__name__) from error


class _Attempt(msgspec.Struct):
    """State of one attempt; `begun` is set when the first byte of the request may have been sent."""

    begun: bool = False


def _trace_attempts() -> aiohttp.TraceConfig:
    async def begin(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        context.trace_request_ctx.begun = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(begin)  # in spite of its name, aiohttp sends it before it writes the headers
    return trace


class Repeat(Enum):
    """Condition under which a write is sent again."""

    UNDONE = auto()
    """Only while the write was certainly not executed."""
    KNOWN = auto()
    """Until an answer arrives: the request has an idempotency key, by which replicas recognise it."""
    HARMLESS = auto()
    """Until an answer arrives: executing the request twice has the same effect as once."""


class Request(NamedTuple):
    """An HTTP request that any replica may answer; `path` includes the query. The answer may take `waits_s` longer than
    usual, because the replica waits for a lock."""

    method: Method
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    repeat: Repeat = Repeat.UNDONE
    waits_s: float = 0.0


class Caller:
    """Sends requests to the replicas at `endpoints`."""

    def __init__(self, endpoints: Sequence[str], *, timeout_ms: int, attempt_ms: int) -> None:
        self.endpoints = Endpoints(endpoints, time.monotonic)
        self.timeout_s = timeout_ms / 1000
        self.attempt_s = attempt_ms / 1000
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Open the HTTP session. Call this once, in a running event loop, before any request."""
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, middlewares=(never_resend,), trace_configs=[_trace_attempts()]
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def deadline(self) -> float:
        """Return the deadline of a call that begins now, on the monotonic clock."""
        return time.monotonic() + self.timeout_s

    def open(
        self, endpoint: str, path: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a GET whose body is a stream: it may take any time, as long as data arrives."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MS / 1000, sock_read=STREAM_MS / 1000)
        return self._open_session.get(
            URL(endpoint + path, encoded=True),
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            trace_request_ctx=_Attempt(),
        )

    async def call(self, request: Request, deadline: float | None = None) -> Response:
        """Return the response of the first replica that accepts the request; ask until `deadline` of the monotonic
        clock. A refusal that follows an attempt of unknown outcome has that attempt's error as its cause."""
        until = self.deadline() if deadline is None else deadline
        unknown: list[UnknownOutcome] = []
        try:
            return await self._ask_in_rounds(request, until, unknown)
        except (NotDone, IdempotencyKeyExpired) as error:
            if not unknown or isinstance(error, _DECIDES_EARLIER_ATTEMPTS):
                raise
            if request.repeat is Repeat.HARMLESS and isinstance(error, Rejected):
                raise error from unknown[-1]
            raise UnknownOutcome(f"{unknown[-1]}; then {error}") from error

    async def _ask_in_rounds(self, request: Request, deadline: float, unknown: list[UnknownOutcome]) -> Response:
        """Ask in rounds until the deadline. The first round needs no tenacity, which would make a read a quarter
        slower: it becomes the first attempt only when it has failed."""
        try:
            return await self._ask_each(request, deadline, unknown)
        except Unavailable as error:
            first = error
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_before_delay(deadline - time.monotonic()),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first
                return await self._ask_each(request, deadline, unknown)
        raise first  # never reached: tenacity raises the last error

    async def _ask_each(self, request: Request, deadline: float, unknown: list[UnknownOutcome]) -> Response:
        """Ask each replica once. Append the errors of attempts of unknown outcome to `unknown`."""
        refusals: list[str] = []
        for endpoint in self.endpoints.in_turn(request.method):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                refusals.append(f"timeout of {self.timeout_s:g} s reached")
                break
            try:
                return await self.ask(endpoint, request, min(self.attempt_s + request.waits_s, left_s))
            except Unavailable as error:
                refusals.append(str(error))
            except (AnswerLost, IdempotencyKeyExpired):
                raise
            except UnknownOutcome as error:
                if request.repeat is Repeat.UNDONE:
                    raise
                unknown.append(error)
                refusals.append(str(error))
        raise Unavailable("; ".join(refusals))

    async def ask(self, endpoint: str, request: Request, timeout_s: float) -> Response:
        """Send the request once, to this replica only."""
        began = time.monotonic()
        try:
            response = accept(endpoint, request.method, await self._send(endpoint, request, timeout_s))
        except (AnswerLost, IdempotencyKeyExpired):
            raise
        except (Unavailable, UnknownOutcome):
            self.endpoints.failed(endpoint)
            raise
        if not request.waits_s:
            self.endpoints.answered(endpoint, request.method, time.monotonic() - began)
        return response

    async def _send(self, endpoint: str, request: Request, timeout_s: float) -> Response:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_MS / 1000)
        url = URL(endpoint + request.path, encoded=True)  # encoded: `..`, `//` and `%2F` of a key stay as they are
        attempt = _Attempt()
        try:
            async with self._open_session.request(
                request.method,
                url,
                data=BytesIO(request.body) if request.body else None,  # aiohttp warns about long bytes
                headers=request.headers,
                timeout=timeout,
                allow_redirects=False,
                trace_request_ctx=attempt,
            ) as response:
                return Response(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"cannot connect to {endpoint}: {os.strerror(error.errno or 0)}") from error
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
            if not attempt.begun:
                raise Unavailable(f"cannot connect to {endpoint}: {str(error) or 'timed out'}") from error
            fail(request.method, f"{endpoint} did not answer: {str(error) or 'timed out'}", error)

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        return self._session
