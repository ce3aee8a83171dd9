"""An asyncio client that knows what it may repeat; see `kvstore.client.caller`."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
import msgspec

from kvstore.backup.stream import End, Page, Reader, Start, StreamError
from kvstore.client.caller import Caller, ConnectionLostError, Request, never_resend
from kvstore.client.documents import ListDocument, pack_transaction, unpack_transacted
from kvstore.client.errors import (
    NO_SUCH_KEY,
    Answer,
    ClientError,
    Compacted,
    ConditionFailed,
    Method,
    NoSuchMember,
    Rejected,
    Unavailable,
    UnknownOutcome,
    accept,
)
from kvstore.client.watch import Happened, Watch
from kvstore.commands import DeleteResult, Found, PutResult, Record, SpanDeleted, Transact, Transacted
from kvstore.members import MemberRole
from kvstore.ranges import EVERY_KEY, Span
from kvstore.requests import Consistency, MembersStatus, Status

__all__ = [
    "DEFAULT_ENDPOINTS",
    "NO_SUCH_KEY",
    "Client",
    "ClientError",
    "Compacted",
    "ConditionFailed",
    "ConnectionLostError",
    "Happened",
    "NoSuchMember",
    "Rejected",
    "Unavailable",
    "UnknownOutcome",
    "never_resend",
]

DEFAULT_ENDPOINTS = ("http://127.0.0.1:8001", "http://127.0.0.1:8002", "http://127.0.0.1:8003")

_LOOK_S = 0.05
"""While a change of the members is not in force, they are looked at so often."""


class Client:
    """Talks to the replicas at `endpoints`, base addresses like `http://127.0.0.1:8001`. Use it in `async with`.

    `timeout_ms` bounds a call with all its repetitions, `attempt_ms` the wait for one replica; a replica ends each
    request by itself within 3 s. Every call raises Unavailable, UnknownOutcome (writes only) or Rejected.
    """

    def __init__(
        self, endpoints: Sequence[str] = DEFAULT_ENDPOINTS, *, timeout_ms: int = 10_000, attempt_ms: int = 4_000
    ) -> None:
        self._caller = Caller(endpoints, timeout_ms=timeout_ms, attempt_ms=attempt_ms)
        self._once_s = min(attempt_ms, timeout_ms) / 1000

    async def __aenter__(self) -> Self:
        self._caller.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._caller.stop()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Whom it talks to."""
        return self._caller.endpoints

    async def get(
        self,
        key: bytes | str,
        consistency: Consistency = Consistency.LINEARIZABLE,
        *,
        revision: int | None = None,
    ) -> Record | None:
        """The record of `key`, None when it is absent; once `revision` was done, if one is given. Raises Compacted."""
        point = f"&revision={revision}" if revision is not None else ""
        answer = await self._caller.call(Request("GET", f"{_path(key)}?consistency={consistency}{point}"))
        if answer.status == 404:
            return None
        headers = answer.headers
        return Record(
            answer.body, int(headers["KV-Revision"]), int(headers["KV-Create-Revision"]), int(headers["KV-Version"])
        )

    async def put(
        self, key: bytes | str, value: bytes, *, if_revision: int | None = None, if_absent: bool = False
    ) -> PutResult:
        """Set `key` to `value`; only while it is at `if_revision`, or only if it is absent. Raises ConditionFailed."""
        if if_absent and if_revision is not None:
            raise ValueError("a key that is absent is at no revision: give if_revision or if_absent")
        headers = {"If-None-Match": "*"} if if_absent else _if_match(if_revision)
        answer = await self._caller.call(Request("PUT", _path(key), value, headers))
        return msgspec.json.decode(answer.body, type=PutResult)

    async def delete(self, key: bytes | str, *, if_revision: int | None = None) -> DeleteResult | None:
        """Remove `key`, only while it is at `if_revision`; None when it was absent. Raises ConditionFailed."""
        answer = await self._caller.call(Request("DELETE", _path(key), headers=_if_match(if_revision)))
        return None if answer.status == 404 else msgspec.json.decode(answer.body, type=DeleteResult)

    async def delete_span(self, span: Span) -> SpanDeleted:
        """Remove all keys of `span`, in one revision."""
        answer = await self._caller.call(Request("DELETE", f"/kv/?{_query(span)}"))
        return msgspec.json.decode(answer.body, type=SpanDeleted)

    async def txn(self, transaction: Transact) -> Transacted:
        """Do all of `transaction`, or nothing of it."""
        answer = await self._caller.call(Request("POST", "/txn", pack_transaction(transaction)))
        return unpack_transacted(answer.body, transaction)

    async def list(
        self,
        span: Span = EVERY_KEY,
        consistency: Consistency = Consistency.LINEARIZABLE,
        *,
        revision: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        page: int = 1000,
    ) -> AsyncGenerator[Found, None]:
        """The keys of `span` in order with what they hold, all as of one moment, asked for `page` at a time. With
        `keys_only` their values are empty. Raises Compacted, perhaps in the midst of it."""
        order = "desc" if reverse else "asc"
        query = f"{_query(span)}&limit={page}&order={order}&keys_only={str(keys_only).lower()}"
        point = f"&revision={revision}" if revision is not None else ""
        while True:
            answer = await self._caller.call(Request("GET", f"/kv/?{query}&consistency={consistency}{point}"))
            found = msgspec.json.decode(answer.body, type=ListDocument)
            for document in found.records:
                yield document.found()
            if not found.more:
                return
            point = f"&cursor={found.cursor}"

    async def watch(
        self, span: Span = EVERY_KEY, *, from_revision: int | None = None
    ) -> AsyncGenerator[Happened, None]:
        """Every change of the keys of `span`, in order, once: from `from_revision` on, or from now on. Goes on at
        another replica when one fails. Raises Compacted when changes that were not taken are forgotten."""
        watch = Watch(self._caller, _query(span), from_revision)
        async for happened in watch.follow():
            yield happened

    async def status(self, endpoint: str) -> Status:
        """What the replica at `endpoint` tells about itself; asked once. Raises Unavailable."""
        answer = await self._caller.ask(endpoint, Request("GET", "/status"), self._once_s)
        try:
            return msgspec.json.decode(answer.body, type=Status)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{endpoint} is not a replica of this version: {error}") from error

    async def members(self) -> MembersStatus:
        """Who belongs to the cluster, by the first replica that answers."""
        answer = await self._caller.call(Request("GET", "/members"))
        return msgspec.json.decode(answer.body, type=MembersStatus)

    async def members_at(self, endpoint: str) -> MembersStatus:
        """The same as the replica at `endpoint` knows it; asked once."""
        answer = await self._caller.ask(endpoint, Request("GET", "/members"), self._once_s)
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
        deadline = time.monotonic() + self._caller.timeout_s
        unsure = False

        async def attempt() -> MembersStatus:
            nonlocal unsure
            try:
                answer = await self._caller.ask_in_turn(Request(method, path, body), deadline)
            except UnknownOutcome:
                unsure = True
                raise
            except NoSuchMember:
                if not unsure:
                    raise
                return await self.members()  # it was made, and only the answer was missing
            return msgspec.json.decode(answer.body, type=MembersStatus)

        changed: MembersStatus = await self._caller.repeatedly(Unavailable, UnknownOutcome)(attempt)
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
                async with self._caller.open(endpoint, f"/backup?consistency={consistency}") as response:
                    if response.status == 200:
                        async for data in response.content.iter_any():
                            for part in reader.feed(data):
                                yield part
                        reader.finish()
                        return
                    accept(endpoint, "GET", Answer(response.status, response.headers, await response.read()))
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


def _path(key: bytes | str) -> str:
    return f"/kv/{quote(key, safe='')}"


def _query(span: Span) -> str:
    end = f"&end={quote(span.end, safe='')}" if span.end is not None else ""
    return f"start={quote(span.start, safe='')}{end}"


def _if_match(revision: int | None) -> dict[str, str]:
    return {"If-Match": f'"{revision}"'} if revision is not None else {}


def _member(name: str) -> str:
    return f"/members/{quote(name, safe='')}"


def _forced(force: bool) -> str:
    return "?force=true" if force else ""
