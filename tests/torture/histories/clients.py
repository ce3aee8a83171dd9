"""Clients that write, that read the past, and that hold leases and locks; each records what it was told."""

import asyncio
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any

import aiohttp
import msgspec

from kvstore.client import ConnectionLostError
from tests.torture.calls import session
from tests.torture.histories.changes import AcknowledgedChange, ObservedChange, PastList, PastRead
from tests.torture.histories.leases import FencedWrite, LeaseEnding, LeaseHistory, LockHold
from tests.torture.histories.watchers import Urls, change_of, now_ns

KEYS = 40
LONG_KEYS = 1000
LONG_FROM, LONG_UPTO = 520, 1000
"""Range of the number of changes of a long revision."""
THINK_S = 0.04
LONG_S = 0.4, 1.2
RETRY_S = 0.1
PAST_TASKS = 6
SAMPLED = 0.02
"""Share of the keys of a long revision that are also read one by one; the whole revision is listed."""
LOCKS = ("l0", "l1")
TTL_S = 0.5, 3.0


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request."""

    replica: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


class CompactedAnswer(msgspec.Struct, frozen=True):
    """An answer that `revision` is compacted. `oldest` is the oldest available one, and `known` the last acknowledged
    one at that time."""

    replica: str
    revision: int
    oldest: int
    known: int


class ClientRecords:
    """Everything that the clients of a run record."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}
        self.acknowledged: list[AcknowledgedChange] = []
        self.written: list[int] = []
        self.reads: list[PastRead] = []
        self.lists: list[PastList] = []
        self.compacted: list[CompactedAnswer] = []
        self.listed: set[int] = set()
        """Long revisions that were listed."""
        self.leases: list[LeaseHistory] = []
        self.endings: list[LeaseEnding] = []
        self.holds: list[LockHold] = []
        self.fenced: list[FencedWrite] = []
        self.unread: deque[ObservedChange] = deque()
        """Changes that were seen and not yet read as of their revision."""
        self._values = 0

    def value(self, key: str) -> str:
        """Return a value that was never sent, for `key`."""
        self._values += 1
        value = f"{key}={self._values}"
        self.sent[value] = key
        return value

    def done(self, revision: int, changes: list[tuple[str, str | None]]) -> None:
        """Record an acknowledged write."""
        self.written.append(revision)
        self.acknowledged += [AcknowledgedChange(revision, key, value) for key, value in changes]

    def refused(self, replica: str, revision: int, oldest: int) -> None:
        """Record that a replica no longer had `revision`."""
        self.compacted.append(CompactedAnswer(replica, revision, oldest, max(self.written, default=0)))

    def saw(self, change: ObservedChange) -> None:
        """Note a change that a watcher of all keys received: the end of a lease, and something to read."""
        self.unread.append(change)
        if change.value is None and change.key.startswith("lease/"):
            self.endings.append(LeaseEnding(int(change.key[6:]), now_ns(), f"{change} was received"))


class HistoryClient:
    """One client: `run_` methods work until `stop` is set."""

    def __init__(self, urls: Urls, rng: Random, records: ClientRecords, stop: asyncio.Event) -> None:
        self._urls = urls
        self._rng = rng
        self._records = records
        self._stop = stop

    async def ask(self, http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Answer | None:
        """Send a request to any replica; None if the outcome is unknown."""
        name = self._rng.choice(sorted(self._urls()))
        try:
            async with http.request(method, self._urls()[name] + path, **options) as response:
                return Answer(name, response.status, response.headers, await response.read())
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError):
            return None

    async def think(self, longest_s: float = THINK_S) -> None:
        """Wait for a random time."""
        await asyncio.sleep(longest_s * self._rng.random())

    async def run_writer(self) -> None:
        """Put and delete single keys."""
        async with session() as http:
            while not self._stop.is_set():
                await self.write(http, f"w/{self._rng.randrange(KEYS)}", delete=self._rng.random() < 0.2)
                await self.think()

    async def write(self, http: aiohttp.ClientSession, key: str, *, delete: bool = False) -> int | None:
        """Put or delete a key; return the revision if it was acknowledged."""
        value = None if delete else self._records.value(key)
        answer = await self.ask(http, "DELETE" if delete else "PUT", f"/kv/{key}", data=value)
        if answer is None or answer.status not in {200, 201}:
            return None
        revision: int = answer.document["revision"]
        self._records.done(revision, [(key, value)])
        return revision

    async def run_long(self) -> None:
        """Make revisions of many changes: puts of keys in random order, and deletions of all of them."""
        async with session() as http:
            while not self._stop.is_set():
                await asyncio.sleep(self._rng.uniform(*LONG_S))
                if self._rng.random() < 0.25:
                    answer = await self.ask(http, "DELETE", "/kv/?prefix=long/")
                    if answer is not None and answer.status == 200 and answer.document["deleted"]:
                        self._records.written.append(answer.document["revision"])
                    continue
                count = self._rng.randint(LONG_FROM, LONG_UPTO)
                keys = [f"long/{number}" for number in self._rng.sample(range(LONG_KEYS), count)]
                puts = [(key, self._records.value(key)) for key in keys]
                body = {"then": [{"put": {"key": key, "value": value}} for key, value in puts]}
                answer = await self.ask(http, "POST", "/txn", data=msgspec.json.encode(body))
                if answer is not None and answer.status == 200:
                    self._records.done(answer.document["revision"], list(puts))

    async def run_past(self) -> None:
        """Read every change that was seen as of its revision, at any replica; list long revisions whole."""
        async with session() as http:
            while not (self._stop.is_set() and not self._records.unread):
                if not self._records.unread:
                    await self.think()
                    continue
                change = self._records.unread.popleft()
                if not change.key.startswith("long/"):
                    await self._read_past(http, change.key, change.revision)
                    continue
                if change.revision not in self._records.listed:
                    self._records.listed.add(change.revision)
                    await self._list_past(http, "long/", change.revision)
                if self._rng.random() < SAMPLED:
                    await self._read_past(http, change.key, change.revision - self._rng.randrange(3))

    async def _past(self, http: aiohttp.ClientSession, path: str, revision: int) -> Answer | None:
        """Return the answer to a read as of `revision`, None if the revision is compacted."""
        while True:
            answer = await self.ask(http, "GET", path)
            if answer is not None and answer.status == 410:
                self._records.refused(answer.replica, revision, int(answer.headers["KV-Oldest-Revision"]))
                return None
            if answer is not None and answer.status in {200, 404}:
                return answer
            await asyncio.sleep(RETRY_S)

    async def _read_past(self, http: aiohttp.ClientSession, key: str, revision: int) -> None:
        answer = await self._past(http, f"/kv/{key}?revision={revision}", revision)
        if answer is None:
            return
        if answer.status == 404:
            self._records.reads.append(PastRead(answer.replica, revision, key, None, 0, 0, 0))
            return
        numbers = [int(answer.headers[name]) for name in ("KV-Revision", "KV-Version", "KV-Create-Revision")]
        self._records.reads.append(PastRead(answer.replica, revision, key, answer.body.decode(), *numbers))

    async def _list_past(self, http: aiohttp.ClientSession, prefix: str, revision: int) -> None:
        answer = await self._past(http, f"/kv/?prefix={prefix}&limit=1000&revision={revision}", revision)
        if answer is not None:
            records = [change_of(record) for record in answer.document["records"]]
            self._records.lists.append(PastList(answer.replica, revision, prefix, records))

    async def run_leases(self) -> None:
        """Grant leases, attach a key to each, keep them alive for a while, and let them expire or revoke them."""
        async with session() as http:
            while not self._stop.is_set():
                held = await self._grant(http)
                if held is None:
                    await asyncio.sleep(RETRY_S)
                    continue
                key = f"lease/{held.lease}"
                value = self._records.value(key)
                answer = await self.ask(http, "PUT", f"/kv/{key}?lease={held.lease}", data=value)
                if answer is not None and answer.status in {200, 201}:
                    self._records.done(answer.document["revision"], [(key, value)])
                for _ in range(self._rng.randrange(4)):
                    await self.think(max(TTL_S) / 2)
                    await self._renew(http, held)
                if self._rng.random() < 0.3:
                    held.revoked_ns = now_ns()
                    await self.ask(http, "DELETE", f"/leases/{held.lease}")
                else:
                    await self._until_ended(http, held)

    async def _grant(self, http: aiohttp.ClientSession) -> LeaseHistory | None:
        ttl_s = round(self._rng.uniform(*TTL_S), 1)
        called_ns = now_ns()
        answer = await self.ask(http, "POST", "/leases", data=msgspec.json.encode({"ttl_s": ttl_s}))
        if answer is None or answer.status not in {200, 201}:
            return None
        held = LeaseHistory(answer.document["id"], [called_ns + int(ttl_s * 1e9)])
        self._records.leases.append(held)
        return held

    async def _renew(self, http: aiohttp.ClientSession, held: LeaseHistory) -> bool:
        called_ns = now_ns()
        answer = await self.ask(http, "POST", f"/leases/{held.lease}/keepalive")
        if answer is None:
            return False
        if answer.status == 404:
            self._records.endings.append(LeaseEnding(held.lease, now_ns(), f"{answer.replica} refused a renewal"))
            return False
        if answer.status != 200:
            return False
        held.ends_ns.append(called_ns + int(answer.document["ttl_s"] * 1e9))
        return True

    async def _until_ended(self, http: aiohttp.ClientSession, held: LeaseHistory) -> None:
        """Read the lease until it has ended."""
        while not self._stop.is_set():
            answer = await self.ask(http, "GET", f"/leases/{held.lease}")
            if answer is not None and answer.status == 404:
                self._records.endings.append(LeaseEnding(held.lease, now_ns(), f"{answer.replica} does not know it"))
                return
            await self.think(0.2)

    async def run_locks(self) -> None:
        """Acquire locks, write under their fencing tokens, and release them or let their leases expire."""
        async with session() as http:
            while not self._stop.is_set():
                held = await self._grant(http)
                if held is not None:
                    await self._lock(http, held, self._rng.choice(LOCKS))
                await self.think()

    async def _lock(self, http: aiohttp.ClientSession, held: LeaseHistory, name: str) -> None:
        wait_s = self._rng.choice([0, 1])
        body = msgspec.json.encode({"lease": held.lease, "wait_s": wait_s})
        answer = await self.ask(http, "POST", f"/locks/{name}", data=body)
        began_ns = now_ns()
        if answer is None or answer.status != 200 or not answer.document["held"]:
            if answer is not None and answer.status == 202:
                held.revoked_ns = began_ns
                await self.ask(http, "DELETE", f"/leases/{held.lease}")
            return
        hold = LockHold(name, held.lease, answer.document["fence"], began_ns)
        self._records.holds.append(hold)
        for _ in range(self._rng.randrange(1, 6)):
            await self._write_fenced(http, hold)
            await self.think(0.3)
            await self._renew(http, held)
        hold.ended_ns = min(now_ns(), max(held.ends_ns))
        if self._rng.random() < 0.6:
            await self.ask(http, "DELETE", f"/locks/{name}?lease={held.lease}")
        else:
            hold.ended_ns = max(held.ends_ns)
            await self._until_ended(http, held)

    async def _write_fenced(self, http: aiohttp.ClientSession, hold: LockHold) -> None:
        key = f"fenced/{hold.name}"
        value = self._records.value(key)
        answer = await self.ask(http, "PUT", f"/kv/{key}?lock={hold.name}&fence={hold.fence}", data=value)
        if answer is not None and answer.status in {200, 201}:
            revision = answer.document["revision"]
            self._records.done(revision, [(key, value)])
            self._records.fenced.append(FencedWrite(hold.name, hold.fence, revision))
