"""An asyncio client that knows what it may repeat.

A request goes to one replica; where that replica certainly did not do it, it goes on to the next one, and round again
with growing random pauses until the deadline. Reads are always repeated. A write is repeated only while it certainly
left no trace: one that may have been done ends in `UnknownOutcome`; the caller alone knows whether to repeat it.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace, TracebackType
from typing import Literal, NoReturn, Self
from urllib.parse import quote

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential
from yarl import URL

from kvstore.backup.stream import End, Page, Reader, Start, StreamError
from kvstore.commands import DeleteResult, PutResult, Record
from kvstore.members import MemberRole
from kvstore.requests import Consistency, MembersStatus, Outcome, Status

DEFAULT_ENDPOINTS = ("http://127.0.0.1:8001", "http://127.0.0.1:8002", "http://127.0.0.1:8003")
CONNECT_MS = 1000
"""A machine that is up answers a connection within this time, or another one is asked."""

STREAM_MS = 30_000
"""A stream in which nothing arrives for so long is broken."""

NO_SUCH_KEY = "urn:kvstore:problem:no-such-key"
MEMBERS_CHANGED = "urn:kvstore:problem:members-changed"
NO_SUCH_MEMBER = "urn:kvstore:problem:no-such-member"
_TRANSIENT = frozenset({408, 429})
"""Refusals that say nothing against the request itself: it came too slowly, or there were too many."""

_LOOK_S = 0.05
"""While a change of the members is not in force, they are looked at so often."""

_FULL = 507

Method = Literal["GET", "PUT", "POST", "DELETE"]


class ClientError(Exception):
    """A request ended without its answer. The message says what is known and what to do."""


class Unavailable(ClientError):
    """Not done, and it left no trace: no replica could take it before the deadline. It may be repeated."""


class UnknownOutcome(ClientError):
    """A write that may have been done, or may yet be: read the key before deciding whether to repeat it."""


class Rejected(ClientError):
    """No replica takes this request, repeating it helps nobody: a key or value is too long, for instance, or the store
    is full."""


class NoSuchMember(Rejected):
    """The member to change does not exist."""


class ConnectionLostError(Exception):
    """The connection broke after the request may have left."""


class _Problem(msgspec.Struct):
    """The part of an RFC 9457 body that decides what may be repeated."""

    type: str = ""
    title: str = ""
    detail: str = ""
    outcome: Outcome | None = None


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


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


class Client:
    """Talks to the replicas at `endpoints`, base addresses like `http://127.0.0.1:8001`. Use it in `async with`.

    `timeout_ms` bounds a call with all its repetitions, `attempt_ms` the wait for one replica; a replica ends each
    request by itself within 3 s. Every call raises Unavailable, UnknownOutcome (writes only) or Rejected.
    """

    def __init__(
        self, endpoints: Sequence[str] = DEFAULT_ENDPOINTS, *, timeout_ms: int = 10_000, attempt_ms: int = 4_000
    ) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint")
        self.endpoints = tuple(endpoint.rstrip("/") for endpoint in endpoints)
        self._timeout_s = timeout_ms / 1000
        self._attempt_s = attempt_ms / 1000
        self._preferred = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, middlewares=(never_resend,), trace_configs=[_watch_progress()]
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, key: bytes | str, consistency: Consistency = Consistency.LINEARIZABLE) -> Record | None:
        """The record of `key`, None when it is absent."""
        answer = await self._call("GET", f"{_path(key)}?consistency={consistency}")
        if answer.status == 404:
            return None
        headers = answer.headers
        return Record(
            answer.body, int(headers["KV-Revision"]), int(headers["KV-Create-Revision"]), int(headers["KV-Version"])
        )

    async def put(self, key: bytes | str, value: bytes) -> PutResult:
        """Set `key` to `value`."""
        answer = await self._call("PUT", _path(key), value)
        return msgspec.json.decode(answer.body, type=PutResult)

    async def delete(self, key: bytes | str) -> DeleteResult | None:
        """Remove `key`; None when it was absent."""
        answer = await self._call("DELETE", _path(key))
        return None if answer.status == 404 else msgspec.json.decode(answer.body, type=DeleteResult)

    async def status(self, endpoint: str) -> Status:
        """What the replica at `endpoint` tells about itself; asked once. Raises Unavailable."""
        answer = await self._ask(endpoint, "GET", "/status", b"", min(self._attempt_s, self._timeout_s))
        try:
            return msgspec.json.decode(answer.body, type=Status)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{endpoint} is not a replica of this version: {error}") from error

    async def members(self) -> MembersStatus:
        """Who belongs to the cluster, by the first replica that answers."""
        answer = await self._call("GET", "/members")
        return msgspec.json.decode(answer.body, type=MembersStatus)

    async def members_at(self, endpoint: str) -> MembersStatus:
        """The same as the replica at `endpoint` knows it; asked once."""
        answer = await self._ask(endpoint, "GET", "/members", b"", min(self._attempt_s, self._timeout_s))
        return msgspec.json.decode(answer.body, type=MembersStatus)

    async def add_member(self, name: str, address: str, role: MemberRole = MemberRole.VOTER) -> MembersStatus:
        """Make `name`, whose peers reach it at `address`, a member. Whoever shall vote does once it has caught up."""
        body = msgspec.json.encode({"name": name, "address": address, "role": role})
        return await self._change_members("POST", "/members", body)

    async def remove_member(self, name: str, *, force: bool = False) -> MembersStatus:
        """Make it a member no more. `force`: also where that leaves no majority connected. It is needed until the
        change is in force: do not stop it before."""
        return await self._change_members("DELETE", f"{_member(name)}{_forced(force)}")

    async def replace_member(self, name: str, address: str | None = None, *, force: bool = False) -> MembersStatus:
        """Its data is lost, or a copy: take it back with a new disk, at `address` if that is another one."""
        body = msgspec.json.encode({"address": address} if address is not None else {})
        return await self._change_members("POST", f"{_member(name)}/replace{_forced(force)}", body)

    async def promote_member(self, name: str) -> MembersStatus:
        """Have a learner vote."""
        return await self._change_members("POST", f"{_member(name)}/promote")

    async def _change_members(self, method: Method, path: str, body: bytes = b"") -> MembersStatus:
        """It does no harm to repeat such a change, so that is done also where nobody knows whether it was made. What is
        given is `in_force`, unless the time is over."""
        deadline = time.monotonic() + self._timeout_s
        unsure = False

        async def attempt() -> MembersStatus:
            nonlocal unsure
            try:
                answer = await self._ask_in_turn(method, path, body, deadline)
            except UnknownOutcome:
                unsure = True
                raise
            except NoSuchMember:
                if not unsure:
                    raise
                return await self.members()  # it was made, and only the answer was missing
            return msgspec.json.decode(answer.body, type=MembersStatus)

        changed: MembersStatus = await self._repeatedly(Unavailable, UnknownOutcome)(attempt)
        while not changed.in_force and time.monotonic() < deadline:
            found = await asyncio.gather(*map(self.members_at, self.endpoints), return_exceptions=True)
            seen = [each for each in found if isinstance(each, MembersStatus)]
            changed = max([changed, *seen], key=lambda each: (each.version, each.in_force))
            await asyncio.sleep(_LOOK_S)
        return changed

    async def backup(
        self, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> AsyncGenerator[Start | Page | End, None]:
        """The whole state of the first replica that sends it, see `kvstore.backup.stream`; it ends with an End. Raises
        Unavailable, when parts may have come already: they are of no use then."""
        refusals: list[str] = []
        for endpoint in self.endpoints:
            reader = Reader()
            try:
                async with self._open(endpoint, f"/backup?consistency={consistency}") as response:
                    if response.status == 200:
                        async for data in response.content.iter_any():
                            for part in reader.feed(data):
                                yield part
                        reader.finish()
                        return
                    _accept(endpoint, "GET", _Answer(response.status, response.headers, await response.read()))
            except (Rejected, Unavailable) as error:  # a replica of another release may take what this one rejects
                refusals.append(str(error))
            except StreamError as error:
                raise Unavailable(f"{endpoint}: {error}") from error
            except aiohttp.ClientConnectorError as error:
                refusals.append(f"{endpoint} is not reached: {os.strerror(error.errno or 0)}")
            except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
                why = f"{endpoint} did not answer, or broke off: {str(error) or 'timed out'}"
                if reader.started:
                    raise Unavailable(f"{why}; take the backup again") from error
                refusals.append(why)
        raise Unavailable("; ".join(refusals))

    def _open(self, endpoint: str, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A GET whose body may take as long as it arrives."""
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MS / 1000, sock_read=STREAM_MS / 1000)
        url = URL(endpoint + path, encoded=True)
        return self._session.get(url, timeout=timeout, allow_redirects=False, trace_request_ctx=_Progress())

    async def _call(self, method: Method, path: str, body: bytes = b"") -> _Answer:
        deadline = time.monotonic() + self._timeout_s
        return await self._repeatedly(Unavailable)(self._ask_in_turn, method, path, body, deadline)

    def _repeatedly(self, *errors: type[ClientError]) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(errors),
            stop=stop_after_delay(self._timeout_s),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )

    async def _ask_in_turn(self, method: Method, path: str, body: bytes, deadline: float) -> _Answer:
        """One round over all replicas, beginning with the one that answered last."""
        refusals: list[str] = []
        for _ in self.endpoints:
            endpoint = self.endpoints[self._preferred]
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                refusals.append("the time is over")
                break
            try:
                return await self._ask(endpoint, method, path, body, min(self._attempt_s, left_s))
            except Unavailable as error:
                refusals.append(str(error))
                self._preferred = (self._preferred + 1) % len(self.endpoints)
        raise Unavailable("; ".join(refusals))

    async def _ask(self, endpoint: str, method: Method, path: str, body: bytes, timeout_s: float) -> _Answer:
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_MS / 1000)
        url = URL(endpoint + path, encoded=True)  # encoded: a key's `..`, `//` and `%2F` stay as they are
        progress = _Progress()
        try:
            async with self._session.request(
                method, url, data=body or None, timeout=timeout, allow_redirects=False, trace_request_ctx=progress
            ) as response:
                answer = _Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"{endpoint} is not reached: {os.strerror(error.errno or 0)}") from error
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
            if not progress.begun:
                raise Unavailable(f"{endpoint} is not reached: {str(error) or 'timed out'}") from error
            _fail(method, f"{endpoint} did not answer: {str(error) or 'timed out'}", error)
        return _accept(endpoint, method, answer)


def _path(key: bytes | str) -> str:
    return f"/kv/{quote(key, safe='')}"


def _member(name: str) -> str:
    return f"/members/{quote(name, safe='')}"


def _forced(force: bool) -> str:
    return "?force=true" if force else ""


def _accept(endpoint: str, method: Method, answer: _Answer) -> _Answer:
    """The answer, if it is one; else the error that says what may be repeated."""
    if answer.status in {200, 201}:
        return answer
    problem = _problem(answer)
    if problem.type == NO_SUCH_KEY:
        return answer
    text = f"{endpoint} answered {answer.status}: {problem.detail or problem.title or 'no reason given'}"
    if problem.type == NO_SUCH_MEMBER:
        raise NoSuchMember(text)
    if problem.type == MEMBERS_CHANGED:
        raise Unavailable(text)
    if answer.status == _FULL or (400 <= answer.status < 500 and answer.status not in _TRANSIENT):
        raise Rejected(text)
    if problem.outcome is Outcome.FAILED:
        raise Unavailable(text)
    return _fail(method, text, None)


def _problem(answer: _Answer) -> _Problem:
    try:
        return msgspec.json.decode(answer.body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Problem()


def _fail(method: Method, text: str, cause: BaseException | None) -> NoReturn:
    """A read may always be repeated; about a write, whoever does not know must say so (rule 23)."""
    if method == "GET":
        raise Unavailable(text) from cause
    raise UnknownOutcome(f"{text}; the write may have been done or not: read the key to see") from cause
