"""One request, at whichever replica takes it.

A request goes to one replica; where that replica certainly did not do it, it goes on to the next one, and round again
with growing random pauses until the deadline. Reads are always repeated. A write of which nobody knows whether it was
done is repeated only if that does no harm, or a replica knows it again; see `Repeat`.
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
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential
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
"""A machine that is up answers a connection within this time, or another one is asked."""

STREAM_MS = 30_000
"""A stream in which nothing arrives for so long is broken."""

_KEPT = (ConditionFailed, LockLost)
"""Refusals that are kept under an idempotency key: what was sent before will never be done."""


class ConnectionLostError(Exception):
    """The connection broke after the request may have left."""


async def never_resend(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide a broken connection from aiohttp, which would send a PUT or DELETE a second time by itself."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLostError(str(error) or type(error).__name__) from error


class _Attempt(msgspec.Struct):
    """Of one attempt. `begun`: a byte of the request may have left."""

    begun: bool = False


def _watch_progress() -> aiohttp.TraceConfig:
    async def begin(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        context.trace_request_ctx.begun = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(begin)  # aiohttp sends it before the headers go, in spite of its name
    return trace


class Repeat(Enum):
    """When a write is sent again."""

    UNDONE = auto()
    """While it is certain that it was not done."""
    KNOWN = auto()
    """Until it is answered: it has an idempotency key, by which the replicas know it again."""
    HARMLESS = auto()
    """Until it is answered: done twice is as good as done once."""


class Request(NamedTuple):
    """What is asked of whoever takes it; `path` has its query. `waits_s`: the answer may take so much longer."""

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
        """Open the HTTP session. Call it once, in a running event loop, before any request."""
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, middlewares=(never_resend,), trace_configs=[_watch_progress()]
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def open(
        self, endpoint: str, path: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A GET whose body may take as long as it arrives."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MS / 1000, sock_read=STREAM_MS / 1000)
        return self._sending.get(
            URL(endpoint + path, encoded=True),
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            trace_request_ctx=_Attempt(),
        )

    async def call(self, request: Request, deadline: float | None = None) -> Response:
        """The answer of the first replica that takes it, asked again and again until `deadline` of the monotonic clock.
        A refusal that follows an attempt of unknown outcome has that as its cause."""
        until = self.deadline() if deadline is None else deadline
        doubts: list[UnknownOutcome] = []
        try:
            try:
                return await self._ask_in_turn(request, until, doubts)
            except Unavailable as error:
                return await self._ask_again(error, request, until, doubts)
        except (NotDone, IdempotencyKeyExpired) as error:
            if not doubts or isinstance(error, _KEPT):
                raise
            if request.repeat is Repeat.HARMLESS and isinstance(error, Rejected):
                raise error from doubts[-1]
            raise UnknownOutcome(f"{doubts[-1]}; then {error}") from error

    async def _ask_again(
        self, first: Unavailable, request: Request, deadline: float, doubts: list[UnknownOutcome]
    ) -> Response:
        """Further rounds, after the one that ended in `first`. Most calls need none, and tenacity takes as much time as
        a request does."""
        failed = [first]

        async def attempt() -> Response:
            if failed:
                raise failed.pop()
            return await self._ask_in_turn(request, deadline, doubts)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=lambda state: time.monotonic() + state.upcoming_sleep >= deadline,
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )
        answer: Response = await retrying(attempt)
        return answer

    def deadline(self) -> float:
        """Of a call that begins now."""
        return time.monotonic() + self.timeout_s

    async def _ask_in_turn(self, request: Request, deadline: float, doubts: list[UnknownOutcome]) -> Response:
        """One round over all replicas. `doubts` gets what became of attempts of unknown outcome."""
        refusals: list[str] = []
        for endpoint in self.endpoints.in_turn(request.method):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                refusals.append("the time is over")
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
                doubts.append(error)
                refusals.append(str(error))
        raise Unavailable("; ".join(refusals))

    async def ask(self, endpoint: str, request: Request, timeout_s: float) -> Response:
        """The answer of this one replica, asked once."""
        began = time.monotonic()
        try:
            answer = accept(endpoint, request.method, await self._send(endpoint, request, timeout_s))
        except (AnswerLost, IdempotencyKeyExpired):
            raise
        except (Unavailable, UnknownOutcome):
            self.endpoints.failed(endpoint)
            raise
        if not request.waits_s:
            self.endpoints.answered(endpoint, request.method, time.monotonic() - began)
        return answer

    async def _send(self, endpoint: str, request: Request, timeout_s: float) -> Response:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_MS / 1000)
        url = URL(endpoint + request.path, encoded=True)  # encoded: a key's `..`, `//` and `%2F` stay as they are
        progress = _Attempt()
        try:
            async with self._sending.request(
                request.method,
                url,
                data=BytesIO(request.body) if request.body else None,  # of long bytes it warns
                headers=request.headers,
                timeout=timeout,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                return Response(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"{endpoint} is not reached: {os.strerror(error.errno or 0)}") from error
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
            if not progress.begun:
                raise Unavailable(f"{endpoint} is not reached: {str(error) or 'timed out'}") from error
            fail(request.method, f"{endpoint} did not answer: {str(error) or 'timed out'}", error)

    @property
    def _sending(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        return self._session
