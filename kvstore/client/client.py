"""The asyncio client."""

import builtins
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import quote

from kvstore.api.commands import (
    Compare,
    Delete,
    DeleteResult,
    DeleteSpanResult,
    KeyState,
    LeasedPut,
    Put,
    PutResult,
    Record,
    Relation,
    Target,
    Transact,
    TransactResult,
)
from kvstore.api.json.documents import RecordPageDocument
from kvstore.api.json.transaction_packing import pack_transaction, unpack_results
from kvstore.api.key_range import EVERY_KEY, Span
from kvstore.api.limits import PROVISIONAL_TTL_S
from kvstore.api.membership import MemberRole
from kvstore.api.queries import Consistency
from kvstore.api.status import MembersStatus, Status
from kvstore.backup.stream import StreamEnd, StreamPage, StreamStart
from kvstore.client.arguments import check_positive, check_timeout_ms, check_ttl_s, check_wait_s
from kvstore.client.backup import take_backup
from kvstore.client.batching import SingleWrite, WriteBatcher, WriteResult
from kvstore.client.caller import Caller, Request
from kvstore.client.errors import Response
from kvstore.client.idempotency import IdempotentCaller
from kvstore.client.leases import AnyLease, Lease, PendingLease, grant, list_leases
from kvstore.client.locks import FencingToken, HeldLock, LockHolder, acquire, give_full_ttl, holder_of
from kvstore.client.membership import MembershipClient
from kvstore.client.watch import OnOutage, Watch, WatchEvent

DEFAULT_ENDPOINTS = ("http://127.0.0.1:8001", "http://127.0.0.1:8002", "http://127.0.0.1:8003")


class Client:
    """An asyncio client of the replicas at `endpoints`, base addresses like `http://127.0.0.1:8001`. Use it in
    `async with`.

    `timeout_ms` is the timeout of a call with all its retries, `attempt_ms` that of one attempt; a replica ends each
    request within 3 s by itself. Each call can raise Unavailable, Rejected and, for writes, UnknownOutcome, see
    `kvstore.client.errors`.

    With `exactly_once`, a write has an idempotency key. A write of unknown outcome is sent again with the same key and
    executed once; normally it raises UnknownOutcome only at the deadline. The client grants itself a lease before the
    first write; the grant and the end of the lease take a revision of the store each.

    Concurrent writes of single keys share a request, see `kvstore.client.batching`.
    """

    def __init__(
        self,
        endpoints: Sequence[str] = DEFAULT_ENDPOINTS,
        *,
        timeout_ms: int = 10_000,
        attempt_ms: int = 4_000,
        exactly_once: bool = True,
    ) -> None:
        check_timeout_ms("timeout_ms", timeout_ms)
        check_timeout_ms("attempt_ms", attempt_ms)
        self._caller = Caller(endpoints, timeout_ms=timeout_ms, attempt_ms=attempt_ms)
        self._idempotent = IdempotentCaller(self._caller) if exactly_once else None
        self._batcher = WriteBatcher(self._send, self._caller.timeout_s)
        self._membership = MembershipClient(self._caller)

    async def __aenter__(self) -> Self:
        self._caller.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._caller.is_forked:
            return  # the connections and the lease belong to the process that opened the client
        await self._batcher.stop()
        if self._idempotent is not None:
            await self._idempotent.stop()
        await self._caller.stop()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Base addresses of the replicas."""
        return self._caller.endpoints.urls

    async def get(
        self,
        key: bytes | str,
        consistency: Consistency = Consistency.LINEARIZABLE,
        *,
        revision: int | None = None,
    ) -> Record | None:
        """Return the record of `key`, as of `revision` if one is given; None when the key is absent. Raises
        Compacted."""
        check_positive("revision", revision)
        point = f"&revision={revision}" if revision is not None else ""
        response = await self._caller.call(Request("GET", f"{_path(key)}?consistency={consistency}{point}"))
        if response.status == 404:
            return None
        revisions = (response.number(f"KV-{name}") for name in ("Revision", "Create-Revision", "Version"))
        return Record(response.body, *revisions)

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
        """Set `key` to `value`.

        The write can depend on conditions: `if_revision` is the revision of the key, the key is absent, the holder of
        `fence` still has the lock. The key is deleted when `lease` ends. `ttl_s` gives the key a lease of its own,
        whose number is the revision of the key. Raises ConditionFailed, LockLost, NoSuchLease.
        """
        if not isinstance(value, bytes):  # it would fail the whole batch, with writes of other callers
            raise TypeError(f"the value must be bytes, not {type(value).__name__}: encode text")
        if if_absent and if_revision is not None:
            raise ValueError("if_revision and if_absent exclude each other: an absent key has no revision")
        if lease is not None and ttl_s is not None:
            raise ValueError("lease and ttl_s exclude each other: ttl_s gives the key a lease of its own")
        check_ttl_s(ttl_s)
        name = _bytes(key)
        number = lease if lease is None or isinstance(lease, int) else lease.id
        check_positive("lease", number)
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
        query = _query(lease=number, ttl_s=ttl_s, **_fence_options(fence))
        result = await self._write(
            SingleWrite(operation, compares, Request("PUT", _path(name) + query, value, headers))
        )
        if not isinstance(result, PutResult):
            raise TypeError(f"unexpected result of a put: {result!r}")
        return result

    async def delete(
        self, key: bytes | str, *, if_revision: int | None = None, fence: FencingToken | None = None
    ) -> DeleteResult | None:
        """Delete `key`; return None when the key was absent. The conditions are those of `put`. Raises
        ConditionFailed, LockLost."""
        name = _bytes(key)
        request = Request("DELETE", _path(name) + _query(**_fence_options(fence)), headers=_if_match(if_revision))
        result = await self._write(SingleWrite(Delete(name), _compares(name, if_revision, fence), request))
        return result if isinstance(result, DeleteResult) else None

    async def delete_span(self, span: Span, *, limit: int | None = None) -> DeleteSpanResult:
        """Delete all keys of `span`, or the first `limit` keys, in one revision.

        The store refuses to delete more than 100,000 keys at once. With `limit`, repeat the call while the result has
        `more`.
        """
        check_positive("limit", limit)
        most = f"&limit={limit}" if limit is not None else ""
        response = await self._send(Request("DELETE", f"/kv/?{_span_query(span)}{most}"))
        return response.decode(DeleteSpanResult)

    async def txn(self, transaction: Transact) -> TransactResult:
        """Execute `transaction` atomically."""
        response = await self._send(Request("POST", "/txn", pack_transaction(transaction)))
        with response.of_a_replica():
            return unpack_results(response.body, transaction)

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
    ) -> AsyncGenerator[KeyState, None]:
        """Yield the records of `span` in the order of their keys, all as of one revision.

        Each request returns up to `page` keys; after each one, `progress` is called with the number of keys so far.
        With `keys_only` the values are empty. Raises Compacted, perhaps after some keys.
        """
        check_positive("revision", revision)
        check_positive("page", page)
        order = "desc" if reverse else "asc"
        query = f"{_span_query(span)}&limit={page}&order={order}&keys_only={str(keys_only).lower()}"
        point = f"&revision={revision}" if revision is not None else ""
        count = 0
        while True:
            response = await self._caller.call(Request("GET", f"/kv/?{query}&consistency={consistency}{point}"))
            found = response.decode(RecordPageDocument)
            count += len(found.records)
            if progress is not None:
                progress(count)
            for document in found.records:
                yield document.found
            if not found.more:
                return
            point = f"&cursor={found.cursor}"

    async def watch(
        self, span: Span = EVERY_KEY, *, from_revision: int | None = None, on_outage: OnOutage | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield every change of the keys of `span`, once and in order, from `from_revision` on, by default from now on.

        Continues at another replica when one fails. When no replica has served the watch for `timeout_ms`, raises
        Unavailable. With `on_outage`, goes on asking instead, for any time: `on_outage` is called with Unavailable when
        no replica serves the watch, and with None when one does again. Raises Compacted when the history no longer
        contains changes that were not delivered.
        """
        check_positive("from_revision", from_revision)
        watch = Watch(self._caller, _span_query(span), from_revision, on_outage)
        async for event in watch.follow():
            yield event

    async def revision(self, consistency: Consistency = Consistency.LINEARIZABLE) -> int:
        """Return the revision of the last change of the store; 0 when there was none."""
        response = await self._caller.call(Request("GET", f"/kv/?limit=1&keys_only=true&consistency={consistency}"))
        return response.number("KV-Revision")

    def lease(self, ttl_s: float = 10.0) -> PendingLease:
        """Grant a lease of `ttl_s` seconds.

        `await client.lease()` returns a lease that the caller keeps alive and revokes; `async with client.lease()`
        renews it every third of its TTL, and revokes it at the end.
        """
        check_ttl_s(ttl_s)
        return PendingLease(lambda: grant(self._caller, ttl_s))

    async def leases(self) -> "builtins.list[Lease]":
        """Return all leases of the store that have not ended."""
        return await list_leases(self._caller)

    @asynccontextmanager
    async def lock(
        self, name: bytes | str, *, ttl_s: float = 10.0, wait_s: float | None = None, value: bytes = b""
    ) -> AsyncGenerator[HeldLock, None]:
        """Hold the lock `name` during the block.

        Waits in a queue for `wait_s` seconds at most, then raises Locked; 0 does not wait, None has no limit. The lock
        has a lease of `ttl_s` seconds, which is renewed during the block; if its holder is lost, the lock is released
        after this time. A client that is lost while it waits is dropped from the queue within PROVISIONAL_TTL_S
        seconds. `holder` returns `value`.
        """
        check_wait_s(wait_s)
        check_ttl_s(ttl_s)
        async with self.lease(min(ttl_s, PROVISIONAL_TTL_S)) as lease:
            fence = await acquire(self._caller, _bytes(name), lease, value, wait_s)
            await give_full_ttl(self._caller, fence, lease, ttl_s)
            yield HeldLock(fence, lease)

    def election(
        self, name: bytes | str, *, value: bytes, ttl_s: float = 10.0, wait_s: float | None = None
    ) -> AbstractAsyncContextManager[HeldLock]:
        """Take part in the election `name`, and lead it during the block: a `lock` whose `value` names the leader."""
        return self.lock(name, ttl_s=ttl_s, wait_s=wait_s, value=value)

    async def holder(self, name: bytes | str) -> LockHolder | None:
        """Return the holder of the lock `name`; None when the lock is free."""
        return await holder_of(self._caller, _bytes(name))

    async def leader(self, name: bytes | str) -> LockHolder | None:
        """Return the leader of the election `name`; None when there is none."""
        return await self.holder(name)

    async def ask(self, request: Request, endpoint: str | None = None) -> Response:
        """Send any request: to the first replica that accepts it, or once, to the replica at `endpoint`."""
        if endpoint is None:
            return await self._caller.call(request)
        return await self._caller.ask(endpoint, request, min(self._caller.attempt_s, self._caller.timeout_s))

    async def status(self, endpoint: str) -> Status:
        """Return the status of the replica at `endpoint`, without retries. Raises Unavailable."""
        return (await self.ask(Request("GET", "/status"), endpoint)).decode(Status)

    async def members(self) -> MembersStatus:
        """Return the membership that the first available replica knows."""
        return await self._membership.show()

    async def members_at(self, endpoint: str) -> MembersStatus:
        """Return the membership that the replica at `endpoint` knows, without retries."""
        return await self._membership.show_at(endpoint)

    async def add_member(self, name: str, address: str, role: MemberRole = MemberRole.VOTER) -> MembersStatus:
        """Add the replica `name`, whose address for peers is `address`. A voter votes once it has caught up."""
        return await self._membership.add(name, address, role)

    async def remove_member(self, name: str, *, force: bool = False) -> MembersStatus:
        """Remove a member. Keep it running until the change is in force: its vote is needed until then.

        With `force`, remove it even if no majority of the remaining members is connected.
        """
        return await self._membership.remove(name, force=force)

    async def replace_member(self, name: str, address: str | None = None, *, force: bool = False) -> MembersStatus:
        """Replace a member, whose data was lost or copied, by one with an empty disk, at `address` if it changes."""
        return await self._membership.replace(name, address, force=force)

    async def promote_member(self, name: str) -> MembersStatus:
        """Make a learner a voter."""
        return await self._membership.promote(name)

    async def backup(
        self, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> AsyncGenerator[StreamStart | StreamPage | StreamEnd, None]:
        """Yield the whole state of the first replica that sends it, see `kvstore.backup.stream`, up to a StreamEnd.

        Raises Unavailable, perhaps after some messages, which are then useless.
        """
        async for part in take_backup(self._caller, consistency):
            yield part

    async def _write(self, write: SingleWrite) -> WriteResult:
        """Execute a write of one key, which may share a request with others."""
        self._caller.check_process()
        return await self._batcher.write(write)

    async def _send(self, request: Request, deadline: float | None = None) -> Response:
        """Send a write and return the response."""
        self._caller.check_process()
        if self._idempotent is not None:
            return await self._idempotent.call(request, deadline)
        return await self._caller.call(request, deadline)


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _path(key: bytes | str) -> str:
    return f"/kv/{quote(key, safe='')}"


def _span_query(span: Span) -> str:
    end = f"&end={quote(span.end, safe='')}" if span.end is not None else ""
    return f"start={quote(span.start, safe='')}{end}"


def _query(**options: bytes | float | None) -> str:
    given = [
        f"{name}={quote(option, safe='') if isinstance(option, bytes) else option}"
        for name, option in options.items()
        if option is not None
    ]
    return f"?{'&'.join(given)}" if given else ""


def _fence_options(fence: FencingToken | None) -> dict[str, bytes | float | None]:
    check_positive("token", fence.token if fence is not None else None)
    return {"lock": fence.lock, "fence": fence.token} if fence is not None else {}


def _compares(key: bytes, revision: int | None, fence: FencingToken | None) -> "list[Compare]":
    compares = [Compare(key, Target.REVISION, Relation.EQUAL, revision)] if revision is not None else []
    return compares + ([fence.holds] if fence is not None else [])


def _if_match(revision: int | None) -> dict[str, str]:
    check_positive("if_revision", revision)
    return {"If-Match": f'"{revision}"'} if revision is not None else {}
