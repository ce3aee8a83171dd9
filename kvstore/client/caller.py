"""One request, at whichever replica takes it.

A request goes to one replica; where that replica certainly did not do it, it goes on to the next one, and round again
with growing random pauses until the deadline. Reads are always repeated. A write is repeated only while it certainly
left no trace: one that may have been done ends in `UnknownOutcome`; the caller alone knows whether to repeat it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

import aiohttp
import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential
from yarl import URL

from kvstore.client.errors import Answer, ClientError, Method, Unavailable, accept, fail

CONNECT_MS = 1000
"""A machine that is up answers a connection within this time, or another one is asked."""

STREAM_MS = 30_000
"""A stream in which nothing arrives for so long is broken."""


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


class _Progress(msgspec.Struct):
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


class Request(NamedTuple):
    """What is asked of whoever takes it; `path` has its query."""

    method: Method
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


class Caller:
    """Sends requests to the replicas at `endpoints`."""

    def __init__(self, endpoints: Sequence[str], *, timeout_ms: int, attempt_ms: int) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint")
        self.endpoints = tuple(endpoint.rstrip("/") for endpoint in endpoints)
        self.timeout_s = timeout_ms / 1000
        self.attempt_s = attempt_ms / 1000
        self._preferred = 0
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Once, in a running event loop, before anything is sent."""
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, middlewares=(never_resend,), trace_configs=[_watch_progress()]
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def in_order(self) -> list[str]:
        """All endpoints, first the one that answered last."""
        return [*self.endpoints[self._preferred :], *self.endpoints[: self._preferred]]

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
            trace_request_ctx=_Progress(),
        )

    async def call(self, request: Request) -> Answer:
        """The answer of the first replica that takes it, asked again and again until the time is over."""
        deadline = time.monotonic() + self.timeout_s
        return await self.repeatedly(Unavailable)(self.ask_in_turn, request, deadline)

    def repeatedly(self, *errors: type[ClientError]) -> AsyncRetrying:
        """Tries again on these errors, with growing random pauses."""
        return AsyncRetrying(
            retry=retry_if_exception_type(errors),
            stop=stop_after_delay(self.timeout_s),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )

    async def ask_in_turn(self, request: Request, deadline: float) -> Answer:
        """One round over all replicas, beginning with the one that answered last."""
        refusals: list[str] = []
        for endpoint in self.in_order:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                refusals.append("the time is over")
                break
            try:
                return await self.ask(endpoint, request, min(self.attempt_s, left_s))
            except Unavailable as error:
                refusals.append(str(error))
                self.prefer_another()
        raise Unavailable("; ".join(refusals))

    def prefer_another(self) -> None:
        """The one that is asked first did not answer."""
        self._preferred = (self._preferred + 1) % len(self.endpoints)

    async def ask(self, endpoint: str, request: Request, timeout_s: float) -> Answer:
        """The answer of this one replica, asked once."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_MS / 1000)
        url = URL(endpoint + request.path, encoded=True)  # encoded: a key's `..`, `//` and `%2F` stay as they are
        progress = _Progress()
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
                answer = Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"{endpoint} is not reached: {os.strerror(error.errno or 0)}") from error
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
            if not progress.begun:
                raise Unavailable(f"{endpoint} is not reached: {str(error) or 'timed out'}") from error
            fail(request.method, f"{endpoint} did not answer: {str(error) or 'timed out'}", error)
        return accept(endpoint, request.method, answer)

    @property
    def _sending(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        return self._session
