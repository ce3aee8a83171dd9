"""Clusters of real processes under a load of clients, and the history of the calls of these clients."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from kvstore.api.errors import Outcome
from kvstore.api.queries import Consistency
from kvstore.server.http.problems import NO_SUCH_KEY, RETRY_AFTER
from kvstore.testing.fork_server import ForkedCluster
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from tests.torture.linearizability import FOREVER, Operation, Verdict, check

STORY_S = 540.0
"""Timeout of a test: much longer than any takes on a busy machine, and short enough for the logs to be printed."""
ANSWER_S = 5.0
"""Timeout of a call. A replica ends each request within 3 s; the rest is for a busy machine."""
ROUNDS = 5
"""Number of refusals by each replica after which an operation has failed. Without a leader a refusal takes 2.5 s."""
STEADY = {"lease_ms": 20_000, "stall_ms": 20_000}
"""Settings with which no replica starts an election because it waits for the processor."""
THINK_S = 0.004
"""Longest pause of a client between two operations: replicas that restart need the processor, too."""


class NotSent(Exception):
    """No connection was made, so no request was sent."""


class NoAnswer(Exception):
    """The request may have arrived."""


class HttpReply(msgspec.Struct, frozen=True):
    """The response of a replica."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """Return the body of a response that is an error."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        document: dict[str, Any] = msgspec.json.decode(self.body)
        assert document["status"] == self.status
        assert document["title"]
        assert document["detail"]
        return document


class Ending(Enum):
    """The outcome of a call."""

    DONE = "done"
    NOT_SENT = "not sent"
    FAILED = "failed"
    """It was refused and not executed."""
    UNKNOWN = "unknown"


class HttpCall(msgspec.Struct, frozen=True):
    """The outcome of one call to one replica, with the reason."""

    ending: Ending
    why: str
    value: bytes | None = None
    """Value that a get returned."""
    found: bool | None = None
    """Whether the key was present."""


class HttpClient:
    """A client with connections of its own. Each call asks one replica once and is recorded in `history`. Use it in
    `async with`."""

    def __init__(self, cluster: ProcessCluster, history: "CallHistory") -> None:
        self._urls = {name: place.url for name, place in cluster.replicas.items()}
        self._history = history

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        self._session._retry_connection = False  # else aiohttp sends a write again by itself when a connection breaks
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, method: str, name: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpReply:
        """Return the response of replica `name`. Raises NotSent or NoAnswer."""
        url = URL(self._urls[name] + target, encoded=True)
        try:
            async with self._session.request(method, url, data=body, headers=headers) as response:
                return HttpReply(response.status, response.headers, await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(repr(error)) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoAnswer(repr(error)) from error

    async def put(self, name: str, key: bytes, value: bytes | None = None) -> HttpCall:
        """Put `value`, by default a value that was never put before."""
        body = self._history.fresh_value() if value is None else value
        return await self._perform("put", name, key, target(key), body)

    async def delete(self, name: str, key: bytes) -> HttpCall:
        """Delete `key`."""
        return await self._perform("delete", name, key, target(key))

    async def get(self, name: str, key: bytes, consistency: Consistency = Consistency.LINEARIZABLE) -> HttpCall:
        """Get `key`. Do not use STALE, which is not linearizable."""
        return await self._perform("get", name, key, f"{target(key)}?consistency={consistency}")

    async def _perform(self, kind: str, name: str, key: bytes, target: str, body: bytes | None = None) -> HttpCall:
        method = kind.upper()
        called = time.monotonic_ns()
        try:
            reply = await self.ask(method, name, target, body)
        except NotSent as error:
            return HttpCall(Ending.NOT_SENT, f"{method} at {name}: {error}")
        except NoAnswer as error:
            call = HttpCall(Ending.UNKNOWN, f"{method} at {name}: {error}")
        else:
            call = _judge(kind, reply, f"{method} at {name}: {reply.status} {reply.body[:300]!r}")
        if call.ending is not Ending.FAILED:
            returned = time.monotonic_ns() if call.ending is Ending.DONE else FOREVER
            value = body if kind == "put" else call.value
            found = call.found if kind == "delete" else None
            self._history.operations.append(Operation(kind, key, value, called, returned, found))
        return call


def _judge(kind: str, reply: HttpReply, why: str) -> HttpCall:
    if reply.status in {200, 201}:
        return HttpCall(Ending.DONE, why, reply.body if kind == "get" else None, found=True)
    problem = reply.problem()
    if problem["type"].endswith(NO_SUCH_KEY.name):
        return HttpCall(Ending.DONE, why, found=False)
    assert reply.status in {429, 503}, why
    assert f"Retry-After: {reply.headers['Retry-After']}\r\n".encode() == RETRY_AFTER
    known = kind == "get" or Outcome(problem["outcome"]) is Outcome.FAILED
    return HttpCall(Ending.FAILED if known else Ending.UNKNOWN, why)


def target(key: bytes) -> str:
    """Return the path of `key`."""
    return "/kv/" + quote(key, safe="/")


class CallHistory:
    """The calls of all clients and their results, over `keys` keys."""

    def __init__(self, keys: int = 8) -> None:
        self.keys = [b"k%d" % number for number in range(keys)]
        self.operations: list[Operation] = []
        self._values = itertools.count()

    def fresh_value(self) -> bytes:
        """Return a value that was never put before."""
        return b"v%d" % next(self._values)

    def acknowledged(self, *kinds: str) -> int:
        """Return the number of operations of these kinds that were acknowledged."""
        return sum(operation.kind in kinds and operation.returned != FOREVER for operation in self.operations)

    async def verify(self, cluster: ProcessCluster, *, least: int, names: Collection[str] | None = None) -> None:
        """Read every key through these replicas, by default all that run, then check that the history is linearizable.
        It must contain at least `least` acknowledged writes and as many reads: a shorter one shows nothing."""
        async with HttpClient(cluster, self) as client:
            for name in filter(cluster.runs, cluster.replicas) if names is None else names:
                for key in self.keys:
                    call = await client.get(name, key)
                    assert call.ending is Ending.DONE, f"the final read failed: {call.why}"
        assert self.acknowledged("put", "delete") >= least
        assert self.acknowledged("get") >= least
        verdict, culprit = check(self.operations)
        assert verdict is Verdict.LINEARIZABLE, f"the history of {culprit!r} is {verdict.value}:\n{self._of(culprit)}"

    def _of(self, key: bytes | None) -> str:
        operations = sorted((each for each in self.operations if each.key == key), key=lambda each: each.called)
        return "\n".join(map(repr, operations))


class BackgroundLoad:
    """Clients in closed loops. Each operation goes to one replica after the other until one has executed it, or may
    have."""

    def __init__(self, cluster: ProcessCluster, history: CallHistory, names: Sequence[str]) -> None:
        self._cluster = cluster
        self._history = history
        self._names = names
        self._progress = asyncio.Event()
        self.stopping = False
        self.acknowledged = 0
        self.troubles: list[str] = []
        """Requests that a replica received and did not execute, or perhaps not."""
        self.given_up: list[str] = []
        """Operations that all replicas refused ROUNDS times."""

    async def more(self, count: int) -> None:
        """Wait until `count` more operations are acknowledged."""
        goal = self.acknowledged + count
        while self.acknowledged < goal:
            self._progress.clear()
            await self._progress.wait()

    async def client(self, number: int) -> None:
        """Execute random operations until `stopping`."""
        rng = Random(number)
        async with HttpClient(self._cluster, self._history) as client:
            while not self.stopping:
                await self._operate(client, rng)
                await asyncio.sleep(rng.uniform(0, THINK_S))

    async def _operate(self, client: HttpClient, rng: Random) -> None:
        kind = rng.choice(("put", "put", "delete", "get", "get", "get", "quorum"))
        key = rng.choice(self._history.keys)
        first = rng.randrange(len(self._names))
        last = ""
        for turn in range(first, first + ROUNDS * len(self._names)):
            call = await _call(client, kind, self._names[turn % len(self._names)], key)
            last = call.why
            if call.ending is Ending.DONE:
                self.acknowledged += 1
                self._progress.set()
                return
            if call.ending is not Ending.NOT_SENT:
                self.troubles.append(call.why)
            if self.stopping or (call.ending is Ending.UNKNOWN and kind in {"put", "delete"}):
                return
        self.given_up.append(last)


async def _call(client: HttpClient, kind: str, name: str, key: bytes) -> HttpCall:
    match kind:
        case "put":
            return await client.put(name, key)
        case "delete":
            return await client.delete(name, key)
        case "quorum":
            return await client.get(name, key, Consistency.QUORUM)
        case _:
            return await client.get(name, key)


@asynccontextmanager
async def load(
    cluster: ProcessCluster, history: CallHistory, names: Collection[str] | None = None, clients: int = 6
) -> AsyncIterator[BackgroundLoad]:
    """Run a load on these replicas, all by default. At the end, wait for the operations under way."""
    running = BackgroundLoad(cluster, history, list(names or cluster.replicas))
    tasks = [asyncio.create_task(running.client(number)) for number in range(clients)]
    try:
        yield running
    finally:
        running.stopping = True
        await asyncio.gather(*tasks)


@contextmanager
def started(cluster: ProcessCluster, names: Collection[str] | None = None) -> Iterator[None]:
    """Start `names`, or all replicas, of a prepared cluster. Kill them at the end. A failure prints the logs."""
    cluster.start(names)
    try:
        yield
    except BaseException:
        for name, place in cluster.replicas.items():
            print(f"---- {name}\n{place.log.read_text(errors='replace')}")
        raise
    finally:
        cluster.kill(*filter(cluster.runs, cluster.replicas))


@asynccontextmanager
async def running(
    directory: Path, nodes: int = 3, *, story_s: float = STORY_S, **settings: int | str
) -> AsyncIterator[ProcessCluster]:
    """Run a ready cluster. No process is left at the end. A failure prints the logs; an error in a log is a failure."""
    cluster = ForkedCluster(nodes, directory / "cluster", settings=settings)
    cluster.prepare()
    with started(cluster):
        async with asyncio.timeout(story_s):
            await cluster.wait_ready()
            yield cluster
    for place in cluster.replicas.values():
        log = place.log.read_text()
        assert not any(alarm in log for alarm in (" ERROR ", " CRITICAL ", "Traceback")), log


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Poll until `holds()` is true. There is no timeout but that of the test."""
    while not await holds():  # noqa: ASYNC110 - other processes set no event
        await asyncio.sleep(POLL_S)


def others(cluster: ProcessCluster, *names: str) -> list[str]:
    """Return the names of the other replicas."""
    return [name for name in cluster.replicas if name not in names]
