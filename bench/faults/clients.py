"""Clients in closed loops, whose every request is recorded."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from bench.faults.history import WRITES, Call, Kind, Outcome
from kvstore.client import NO_SUCH_KEY, ConnectionLostError, never_resend

ANSWER_S = 4.0
"""A replica ends each request within 3 s."""
THINK_S = 0.03
"""Longest pause between two requests."""
AVOID_S = 0.3, 1.5
"""A replica that did not do what it was asked is left alone for so long."""
KINDS: tuple[Kind, ...] = ("put", "put", "put", "put", "delete", "get", "get", "get", "get", "quorum", "stale")
READS: tuple[Kind, ...] = ("get", "get", "get", "get", "stale")
KEYS = 5
"""Keys in use at the same time: few, so that clients meet at each of them."""
CALLS_OF_KEY = 150
"""Then others take their place: a history stays short enough to be checked."""


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections of one client."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout, middlewares=(never_resend,)) as opened:
        yield opened


class _Answer(msgspec.Struct):
    """What is of use in the body of a write's answer, or of a problem."""

    revision: int | None = None
    type: str = ""
    outcome: str = "unknown"


async def call(http: aiohttp.ClientSession, replica: str, url: str, kind: Kind, key: str, *, value: str) -> Call:
    """Ask one replica, at `url`, once. `value` is for puts."""
    called_ns = time.monotonic_ns()
    outcome, seen, revision = await _ask(http, url, kind, key, value)
    shown = value if kind == "put" else seen
    return Call(kind, key, replica, called_ns, time.monotonic_ns(), outcome, shown, revision)


async def _ask(
    http: aiohttp.ClientSession, url: str, kind: Kind, key: str, value: str
) -> tuple[Outcome, str | None, int | None]:
    """Outcome, the value that a read saw, the revision."""
    writes = kind in WRITES
    consistency = "" if writes or kind == "get" else f"?consistency={kind}"
    target = URL(f"{url}/kv/{quote(key)}{consistency}", encoded=True)
    method = kind.upper() if writes else "GET"
    try:
        async with http.request(method, target, data=value if kind == "put" else None) as response:
            body, status, headers = await response.read(), response.status, response.headers
    except aiohttp.ClientConnectorError:
        return "refused", None, None  # nothing was sent
    except (ConnectionLostError, aiohttp.ClientError, TimeoutError):
        return ("unknown" if writes else "refused"), None, None
    if status in {200, 201}:
        if writes:
            return "answered", None, msgspec.json.decode(body, type=_Answer).revision
        return "answered", body.decode(), int(headers["KV-Revision"])
    problem = msgspec.json.decode(body, type=_Answer)
    if status == 404 and problem.type == NO_SUCH_KEY:
        return "answered", None, None
    return ("unknown" if writes and problem.outcome != "failed" else "refused"), None, None


class Keys:
    """Which keys are in use, and values of which there is only one each."""

    def __init__(self) -> None:
        self._calls = 0
        self._values = 0

    def draw(self, rng: Random) -> str:
        """A key for the next call."""
        group = self._calls // (KEYS * CALLS_OF_KEY)
        self._calls += 1
        return f"g{group}/k{rng.randrange(KEYS)}"

    def fresh_value(self) -> str:
        """Never put before."""
        self._values += 1
        return f"v{self._values}"


class Load:
    """Clients that work until `stop`; what they did is in `calls`."""

    def __init__(self, urls: Mapping[str, str], seed: int) -> None:
        self._urls = dict(urls)
        self._seed = seed
        self._keys = Keys()
        self._stopping = False
        self.calls: list[Call] = []
        self.answered = 0
        self.before_read_back = 0
        """How many calls were made under faults; those after them read everything back."""

    def stop(self) -> None:
        """Let each client end after the request that is under way."""
        self._stopping = True

    async def client(self, number: int) -> None:
        """One client. It has a replica of its own, and goes to another one for a while when that has failed it: so a
        replica that hangs holds up its own clients only. Every second client of a replica does nothing but read: those
        that write wait for an answer as soon as its leader is cut off, when its reads are of interest."""
        rng = Random(f"{self._seed}/{number}")
        names = list(self._urls)
        own = names[number % len(names)]
        kinds = READS if number // len(names) % 2 else KINDS
        avoided = dict.fromkeys(names, 0.0)
        async with session() as http:
            while not self._stopping:
                now = time.monotonic()
                willing = [name for name in names if avoided[name] <= now]
                if not willing:
                    await asyncio.sleep(min(avoided.values()) - now)
                    continue
                replica = own if own in willing else rng.choice(willing)
                kind, key = rng.choice(kinds), self._keys.draw(rng)
                done = await call(http, replica, self._urls[replica], kind, key, value=self._keys.fresh_value())
                self.calls.append(done)
                if done.outcome == "answered":
                    self.answered += 1
                else:
                    avoided[replica] = time.monotonic() + rng.uniform(*AVOID_S)
                await asyncio.sleep(rng.uniform(0, THINK_S))

    async def read_back(self, timeout_s: float) -> None:
        """Read each key through every replica. Raises TimeoutError when one of them does not answer."""
        self.before_read_back = len(self.calls)
        left: Iterator[tuple[str, str]] = iter([(key, name) for key in self._used() for name in self._urls])

        async def reader() -> None:
            async with session() as http:
                for key, name in left:
                    done = await call(http, name, self._urls[name], "get", key, value="")
                    while done.outcome != "answered":
                        await asyncio.sleep(THINK_S)
                        done = await call(http, name, self._urls[name], "get", key, value="")
                    self.calls.append(done)

        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as readers:
            for _ in range(8):
                readers.create_task(reader())

    def _used(self) -> list[str]:
        return list(dict.fromkeys(call.key for call in self.calls))
