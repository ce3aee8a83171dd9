"""Requests to the replicas, with retries.

A request goes to one replica at a time. If that replica certainly did not execute the request, the next replica gets
it; after the last replica, further rounds follow with exponential, random back-off until the deadline. A read is always
retried, a write of unknown outcome only where that is safe, see `Repeat`.
"""

import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from io import BytesIO
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple, cast

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
from kvstore.client.owner_process import OwnerProcess

CONNECT_MS = 1000
"""Timeout of a connection attempt; the next replica is tried then."""

STREAM_MS = 30_000
"""Time without data after which a stream counts as broken."""

_STORED_REFUSALS = (ConditionFailed, LockLost)
"""Refusals that replicas store under the idempotency key: each is also the answer to earlier attempts of the write."""


class ConnectionLostError(Exception):
    """A broken connection on which the request may have been sent."""


async def never_resend(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide a broken connection from aiohttp, which would otherwise send a PUT or DELETE a second time."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLostError(str(error) or type(error).__name__) from error


def cannot_connect(endpoint: str, error: aiohttp.ClientConnectorError) -> str:
    """Return the message about a failed connection attempt."""
    cause = error.os_error
    if isinstance(cause, ssl.SSLError):
        return f"cannot connect to {endpoint}: TLS failed ({cause.reason}), and a replica itself speaks http only"
    if isinstance(cause, socket.gaierror):
        return f"cannot connect to {endpoint}: the host is unknown ({cause.strerror})"
    return f"cannot connect to {endpoint}: {os.strerror(cause.errno) if cause.errno else cause}"


class _Attempt(msgspec.Struct):
    """State of one attempt; `begun` is set when the first byte of the request may have been sent."""

    begun: bool = False


def _trace_attempts() -> aiohttp.TraceConfig:
    async def begin(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        context.trace_request_ctx.begun = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(begin)  # despite its name, called before the headers are sent
    return trace


class Repeat(Enum):
    """Rule for sending a write again."""

    UNDONE = auto()
    """Send again only while the write was certainly not executed."""
    KNOWN = auto()
    """Send again until an answer arrives: replicas recognise the request by its idempotency key."""
    HARMLESS = auto()
    """Send again until an answer arrives: executing the request twice has the same effect as once."""


class Request(NamedTuple):
    """An HTTP request that any replica can answer; `path` includes the query. The answer may take `waits_s` longer than
    usual, because the replica waits for a lock."""

    method: Method
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    repeat: Repeat = Repeat.UNDONE
    waits_s: float = 0.0


class Caller:
    """An HTTP client of the replicas at `endpoints` that retries requests."""

    def __init__(self, endpoints: Sequence[str], *, timeout_ms: int, attempt_ms: int) -> None:
        self.endpoints = Endpoints(endpoints, time.monotonic)
        self.timeout_s = timeout_ms / 1000
        self.attempt_s = attempt_ms / 1000
        self._session: aiohttp.ClientSession | None = None
        self._process: OwnerProcess | None = None

    def start(self) -> None:
        """Open the HTTP session. Call this once, in a running event loop, before any request."""
        self._process = OwnerProcess("Client")
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, middlewares=(never_resend,), trace_configs=[_trace_attempts()]
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def is_forked(self) -> bool:
        """Whether this is a process that was forked since `start`."""
        return self._process is not None and self._process.is_forked

    def check_process(self) -> None:
        """Raise RuntimeError if the client is not open, or in a process that was forked since `start`."""
        if self._process is None or self._session is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        self._process.check()

    def deadline(self) -> float:
        """Return the deadline of a call that begins now, on the monotonic clock."""
        return time.monotonic() + self.timeout_s

    def open(
        self, endpoint: str, path: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a GET whose response is a stream, which may take any time as long as data arrives."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MS / 1000, sock_read=STREAM_MS / 1000)
        return self._open_session.get(
            URL(endpoint + path, encoded=True),
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            trace_request_ctx=_Attempt(),
        )

    async def call(self, request: Request, deadline: float | None = None) -> Response:
        """Return the response of the first replica that accepts the request; try until `deadline` (monotonic clock).

        A refusal after an attempt of unknown outcome raises UnknownOutcome, with two exceptions: a refusal that also
        answers that attempt, and a Rejected for Repeat.HARMLESS, whose cause is then the error of that attempt.
        """
        until = self.deadline() if deadline is None else deadline
        unknown: list[UnknownOutcome] = []
        try:
            return await self._ask_in_rounds(request, until, unknown)
        except (NotDone, IdempotencyKeyExpired) as error:
            if not unknown or isinstance(error, _STORED_REFUSALS):
                raise
            if request.repeat is Repeat.HARMLESS and isinstance(error, Rejected):
                raise error from unknown[-1]
            raise UnknownOutcome(f"{unknown[-1]}; then {error}") from error

    async def _ask_in_rounds(self, request: Request, deadline: float, unknown: list[UnknownOutcome]) -> Response:
        """Ask all replicas in rounds until the deadline.

        The first round runs without tenacity, which would make a read a quarter slower. If that round fails, its error
        becomes the result of tenacity's first attempt.
        """
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
        """Ask each replica once, until one accepts. Append errors of attempts of unknown outcome to `unknown`."""
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
                body = await response.read()
                return Response(response.status, response.headers, body, endpoint, request.method)
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(cannot_connect(endpoint, error)) from error
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
            if not attempt.begun:
                raise Unavailable(f"cannot connect to {endpoint}: {str(error) or 'timed out'}") from error
            fail(request.method, f"{endpoint} did not answer: {str(error) or 'timed out'}", error)

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        self.check_process()
        return cast("aiohttp.ClientSession", self._session)
