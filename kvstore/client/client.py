"""The asyncio client."""

import builtins
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import quote

import msgspec

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    Found,
    LeasedPut,
    Put,
    PutResult,
    Record,
    Relation,
    SpanDeleted,
    Target,
    Transact,
    Transacted,
)
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.api.membership import MemberRole
from kvstore.api.queries import Consistency
from kvstore.api.status import MembersStatus, Status
from kvstore.backup.stream import StreamEnd, StreamPage, StreamStart
from kvstore.client.backup import take_backup
from kvstore.client.batching import KeyWrite, WriteBatcher
from kvstore.client.caller import Caller, Request
from kvstore.client.documents import ListDocument, pack_transaction, unpack_transacted
from kvstore.client.errors import Response, Unavailable
from kvstore.client.idempotency import IdempotentCaller
from kvstore.client.leases import AnyLease, Lease, PendingLease, grant, list_leases
from kvstore.client.locks import FencingToken, HeldLock, LockHolder, acquire, holder_of
from kvstore.client.membership import MembershipClient
from kvstore.client.watch import Watch, WatchEvent

DEFAULT_ENDPOINTS = ("http://127.0.0.1:8001", "http://127.0.0.1:8002", "http://127.0.0.1:8003")


class Client:
    """Talks to the replicas at `endpoints`, base addresses like `http://127.0.0.1:8001`. Use it in `async with`.

    `timeout_ms` bounds a call with all its repetitions, `attempt_ms` the wait for one replica; a replica ends each
    request by itself within 3 s. Every call raises Unavailable, UnknownOutcome (writes only) or Rejected, see
    `kvstore.client.errors`. With `exactly_once` a write whose outcome is unknown is sent again, and done once: only at
    the deadline it ends in UnknownOutcome. That takes a lease at the first write, which is two revisions of the store.

    Writes of single keys that wait at the same time go in one request, see `kvstore.client.batching`.
    """

    def __init__(
        self,
        endpoints: Sequence[str] = DEFAULT_ENDPOINTS,
        *,
        timeout_ms: int = 10_000,
        attempt_ms: int = 4_000,
        exactly_once: bool = True,
    ) -> None:
        self._caller = Caller(endpoints, timeout_ms=timeout_ms, attempt_ms=attempt_ms)
        self._once = IdempotentCaller(self._caller) if exactly_once else None
        self._gatherer = WriteBatcher(self._send, self._caller.timeout_s)
        self._membership = MembershipClient(self._caller)

    async def __aenter__(self) -> Self:
        self._caller.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._gatherer.stop()
        if self._once is not None:
            await self._once.stop()
        await self._caller.stop()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Whom it talks to."""
        return self._caller.endpoints.urls

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
        self,
        key: bytes | str,
        value: bytes,
        *,
        if_revision: int | None = None,
        if_absent: bool = False,
        lease: AnyLease | int | None = None,
        ttl_s: float | None = None,
        fence: FencingToken | None = None,
    ) -> PutResult:
        """Set `key` to `value`; only while it is at `if_revision`, only if it is absent, or only while `fence` holds
        its lock. It goes with `lease`, or after `ttl_s` seconds, named by its revision. Raises ConditionFailed,
        LockLost, NoSuchLease."""
        if not isinstance(value, bytes):  # it may fail among the writes of others, else
            raise TypeError(f"a value is bytes, not {type(value).__name__}: encode text")
        if if_absent and if_revision is not None:
            raise ValueError("a key that is absent is at no revision: give if_revision or if_absent")
        if lease is not None and ttl_s is not None:
            raise ValueError("a key goes with one lease: give lease, or ttl_s for one of its own")
        name = _bytes(key)
        number = lease if lease is None or isinstance(lease, int) else lease.id
        compares = _compares(name, if_revision, fence)
        headers = _if_match(if_revision)
        if if_absent:
            compares.append(Compare(name, Target.EXISTS, Relation.EQUAL, 0))
            headers = {"If-None-Match": "*"}
        operation = (
            Put(name, value)
            if number is None and ttl_s is None
            else LeasedPut(name, value, number or 0, round(1000 * (ttl_s or 0)))
        )
        query = _query(lease=number, ttl_s=ttl_s, **_guard(fence))
        result = await self._gatherer.do(
            KeyWrite(operation, compares, Request("PUT", _path(name) + query, value, headers))
        )
        if not isinstance(result, PutResult):
            raise TypeError(f"a put was answered with {result!r}")
        return result

    async def delete(
        self, key: bytes | str, *, if_revision: int | None = None, fence: FencingToken | None = None
    ) -> DeleteResult | None:
        """Remove `key`, only while it is at `if_revision`, and only while `fence` holds its lock; None when it was
        absent. Raises ConditionFailed, LockLost."""
        name = _bytes(key)
        request = Request("DELETE", _path(name) + _query(**_guard(fence)), headers=_if_match(if_revision))
        result = await self._gatherer.do(KeyWrite(Delete(name), _compares(name, if_revision, fence), request))
        return result if isinstance(result, DeleteResult) else None

    async def delete_span(self, span: Span) -> SpanDeleted:
        """Remove all keys of `span`, in one revision."""
        answer = await self._send(Request("DELETE", f"/kv/?{_of(span)}"))
        return msgspec.json.decode(answer.body, type=SpanDeleted)

    async def txn(self, transaction: Transact) -> Transacted:
        """Do all of `transaction`, or nothing of it."""
        answer = await self._send(Request("POST", "/txn", pack_transaction(transaction)))
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
        progress: Callable[[int], object] | None = None,
    ) -> AsyncGenerator[Found, None]:
        """The keys of `span` in order with what they hold, all as of one moment, asked for `page` at a time. With
        `keys_only` their values are empty. After each page `progress` is told how many have come so far. Raises
        Compacted, perhaps in the midst of it."""
        order = "desc" if reverse else "asc"
        query = f"{_of(span)}&limit={page}&order={order}&keys_only={str(keys_only).lower()}"
        point = f"&revision={revision}" if revision is not None else ""
        count = 0
        while True:
            answer = await self._caller.call(Request("GET", f"/kv/?{query}&consistency={consistency}{point}"))
            found = msgspec.json.decode(answer.body, type=ListDocument)
            count += len(found.records)
            if progress is not None:
                progress(count)
            for document in found.records:
                yield document.found()
            if not found.more:
                return
            point = f"&cursor={found.cursor}"

    async def watch(
        self, span: Span = EVERY_KEY, *, from_revision: int | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Every change of the keys of `span`, in order, once: from `from_revision` on, or from now on. Goes on at
        another replica when one fails. Raises Compacted when changes that were not taken are forgotten."""
        watch = Watch(self._caller, _of(span), from_revision)
        async for happened in watch.follow():
            yield happened

    async def revision(self, consistency: Consistency = Consistency.LINEARIZABLE) -> int:
        """Of the last change of the store; 0 when there was none."""
        answer = await self._caller.call(Request("GET", f"/kv/?limit=1&keys_only=true&consistency={consistency}"))
        return int(answer.headers["KV-Revision"])

    def lease(self, ttl_s: float = 10.0) -> PendingLease:
        """A lease of `ttl_s` seconds. `await` gives one to keep alive and revoke by oneself; `async with` keeps it
        alive meanwhile, a third of its length apart, and revokes it at the end."""
        return PendingLease(lambda: grant(self._caller, ttl_s))

    async def leases(self) -> "builtins.list[Lease]":
        """All that live."""
        return await list_leases(self._caller)

    @asynccontextmanager
    async def lock(
        self, name: bytes | str, *, ttl_s: float = 10.0, wait_s: float | None = None, value: bytes = b""
    ) -> AsyncGenerator[HeldLock, None]:
        """Hold the lock `name`: who comes first has it, the others wait in line, for `wait_s` seconds at most; 0 does
        not wait, None has no limit. It goes with a lease of `ttl_s`, kept alive meanwhile, so it is free again that
        long after its holder was lost. `value` is for whoever asks who holds it. Raises Locked."""
        async with self.lease(ttl_s) as lease:
            yield HeldLock(await acquire(self._caller, _bytes(name), lease, value, wait_s), lease)

    def election(
        self, name: bytes | str, *, value: bytes, ttl_s: float = 10.0, wait_s: float | None = None
    ) -> AbstractAsyncContextManager[HeldLock]:
        """Stand for election in `name`, and lead: the same as `lock`, with a `value` that says who leads."""
        return self.lock(name, ttl_s=ttl_s, wait_s=wait_s, value=value)

    async def holder(self, name: bytes | str) -> LockHolder | None:
        """Who holds the lock `name`; None for nobody."""
        return await holder_of(self._caller, _bytes(name))

    async def leader(self, name: bytes | str) -> LockHolder | None:
        """Who leads in `name`; None for nobody."""
        return await self.holder(name)

    async def ask(self, request: Request, endpoint: str | None = None) -> Response:
        """Anything else that replicas answer: by the first one that takes it, or by that at `endpoint`, asked once."""
        if endpoint is None:
            return await self._caller.call(request)
        return await self._caller.ask(endpoint, request, min(self._caller.attempt_s, self._caller.timeout_s))

    async def status(self, endpoint: str) -> Status:
        """What the replica at `endpoint` tells about itself; asked once. Raises Unavailable."""
        answer = await self.ask(Request("GET", "/status"), endpoint)
        try:
            return msgspec.json.decode(answer.body, type=Status)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{endpoint} is not a replica of this version: {error}") from error

    async def members(self) -> MembersStatus:
        """Who belongs to the cluster, by the first replica that answers."""
        return await self._membership.show()

    async def members_at(self, endpoint: str) -> MembersStatus:
        """The same as the replica at `endpoint` knows it; asked once."""
        return await self._membership.show_at(endpoint)

    async def add_member(self, name: str, address: str, role: MemberRole = MemberRole.VOTER) -> MembersStatus:
        """Make `name`, whose peers reach it at `address`, a member. Whoever shall vote does once it has caught up."""
        return await self._membership.add(name, address, role)

    async def remove_member(self, name: str, *, force: bool = False) -> MembersStatus:
        """Make it a member no more. `force`: also where that leaves no majority connected. It is needed until the
        change is in force: do not stop it before."""
        return await self._membership.remove(name, force=force)

    async def replace_member(self, name: str, address: str | None = None, *, force: bool = False) -> MembersStatus:
        """Its data is lost, or a copy: take it back with a new disk, at `address` if that is another one."""
        return await self._membership.replace(name, address, force=force)

    async def promote_member(self, name: str) -> MembersStatus:
        """Have a learner vote."""
        return await self._membership.promote(name)

    async def backup(
        self, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> AsyncGenerator[StreamStart | StreamPage | StreamEnd, None]:
        """Yield the whole state of the first replica that sends it, as messages of `kvstore.backup.stream` up to a
        StreamEnd. Raises Unavailable, also after some messages: they are of no use then."""
        async for part in take_backup(self._caller, consistency):
            yield part

    async def _send(self, request: Request, deadline: float | None = None) -> Response:
        """The answer to a write."""
        if self._once is not None:
            return await self._once.call(request, deadline)
        return await self._caller.call(request, deadline)


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _path(key: bytes | str) -> str:
    return f"/kv/{quote(key, safe='')}"


def _of(span: Span) -> str:
    end = f"&end={quote(span.end, safe='')}" if span.end is not None else ""
    return f"start={quote(span.start, safe='')}{end}"


def _query(**options: bytes | float | None) -> str:
    given = [
        f"{name}={quote(option, safe='') if isinstance(option, bytes) else option}"
        for name, option in options.items()
        if option is not None
    ]
    return f"?{'&'.join(given)}" if given else ""


def _guard(fence: FencingToken | None) -> dict[str, bytes | float | None]:
    return {"lock": fence.lock, "fence": fence.token} if fence is not None else {}


def _compares(key: bytes, revision: int | None, fence: FencingToken | None) -> "list[Compare]":
    at = [Compare(key, Target.REVISION, Relation.EQUAL, revision)] if revision is not None else []
    return at + ([fence.holds] if fence is not None else [])


def _if_match(revision: int | None) -> dict[str, str]:
    return {"If-Match": f'"{revision}"'} if revision is not None else {}
