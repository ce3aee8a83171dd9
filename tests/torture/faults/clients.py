"""Clients in closed loops, whose every request is recorded."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from kvstore.client import NO_SUCH_KEY, ConnectionLostError, never_resend
from tests.torture.faults.history import SWAPS, WRITES, Call, Kind, Outcome

ANSWER_S = 4.0
"""A replica ends each request within 3 s."""
THINK_S = 0.03
"""Longest pause between two requests."""
AVOID_S = 0.3, 1.5
"""A replica that did not do what it was asked is left alone for so long."""
KINDS: tuple[Kind, ...] = ("put", "put", "swap", "swap", "delete", "get", "get", "get", "get", "quorum", "stale")
READS: tuple[Kind, ...] = ("get", "get", "get", "get", "stale")
PAIR_KINDS: tuple[Kind, ...] = ("pair", "pair", "pair-swap", "pair-swap", "both", "both", "half", "half")
PAIR_READS: tuple[Kind, ...] = ("both", "half")
KEYS = 5
"""Keys in use at the same time: few, so that clients meet at each of them."""
PAIRS = 2
PAIR = "pair"
HALVES = ("a", "b")
CALLS_OF_KEY = 150
"""Then others take their place: a history stays short enough to be checked."""


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections of one client."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout, middlewares=(never_resend,)) as opened:
        yield opened


class Seen(msgspec.Struct, frozen=True):
    """What a key held once, by whoever read or put it last; a key that was absent is not seen."""

    value: str
    revision: int


class _Question(NamedTuple):
    """What is asked, see `call`."""

    kind: Kind
    key: str
    value: str
    seen: Seen | None


class _Record(msgspec.Struct):
    """What a look-up in a transaction gives; without a revision the key is absent."""

    value: str | None = None
    revision: int | None = None


class _Result(msgspec.Struct):
    get: _Record | None = None


class _Answer(msgspec.Struct):
    """What is of use in the body of a write's answer, or of a problem."""

    revision: int | None = None
    type: str = ""
    outcome: str = "unknown"
    succeeded: bool = True
    results: list[_Result] = []


async def call(
    http: aiohttp.ClientSession, replica: str, url: str, kind: Kind, key: str, *, value: str, seen: Seen | None = None
) -> Call:
    """Ask one replica, at `url`, once. `value` is for puts, `seen` what a swap is to find, None for an absent key."""
    called_ns = time.monotonic_ns()
    writes = kind in WRITES
    expected = seen.value if kind in SWAPS and seen is not None else None
    outcome: Outcome = "refused"
    shown, revision = None, None
    try:
        async with _request(http, url, _Question(kind, key, value, seen)) as response:
            body, status, headers = await response.read(), response.status, response.headers
    except aiohttp.ClientConnectorError:
        pass  # nothing was sent
    except (ConnectionLostError, aiohttp.ClientError, TimeoutError):
        outcome = "unknown" if writes else "refused"
    else:
        kind, outcome, shown, revision = _meaning(kind, status, headers, body)
    put = kind in WRITES and kind != "delete"
    returned_ns = time.monotonic_ns()
    return Call(kind, key, replica, called_ns, returned_ns, outcome, value if put else shown, revision, expected)


def _request(
    http: aiohttp.ClientSession, url: str, question: _Question
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    kind, key, value, seen = question
    if kind in {"pair", "pair-swap", "both"}:
        return http.post(f"{url}/txn", data=_transaction(question))
    half = f"/{HALVES[sum(value.encode()) % 2]}" if kind == "half" else ""
    consistency = f"?consistency={kind}" if kind in {"quorum", "stale"} else ""
    target = URL(f"{url}/kv/{quote(key + half)}{consistency}", encoded=True)
    headers = {}
    if kind == "swap":
        headers = {"If-Match": f'"{seen.revision}"'} if seen is not None else {"If-None-Match": "*"}
    method = "PUT" if kind in {"put", "swap"} else "DELETE" if kind == "delete" else "GET"
    return http.request(method, target, data=value if method == "PUT" else None, headers=headers)


def _transaction(question: _Question) -> bytes:
    """Reads or puts both keys of a pair; of a swap one of them tells for both whether they are as they were seen."""
    kind, key, value, seen = question
    keys = [f"{key}/{half}" for half in HALVES]
    reads = [{"get": {"key": each}} for each in keys]
    if kind == "both":
        return msgspec.json.encode({"then": reads})
    puts = [{"put": {"key": each, "value": value}} for each in keys]
    if kind == "pair":
        return msgspec.json.encode({"then": puts})
    condition = {"revision": seen.revision} if seen is not None else {"exists": False}
    return msgspec.json.encode({"compare": [{"key": keys[0], **condition}], "then": puts, "else": reads})


def _meaning(
    kind: Kind, status: int, headers: Mapping[str, str], body: bytes
) -> tuple[Kind, Outcome, str | None, int | None]:
    """What it was then, the outcome, the value that a read saw, the revision."""
    if status in {200, 201}:
        if kind not in WRITES and kind != "both":
            return kind, "answered", body.decode(), int(headers["KV-Revision"])
        answer = msgspec.json.decode(body, type=_Answer)
        if kind in WRITES and answer.succeeded:
            return kind, "answered", None, answer.revision
        return "both", "answered", *_both(answer)
    problem = msgspec.json.decode(body, type=_Answer)
    if status == 404 and problem.type == NO_SUCH_KEY:
        return kind, "answered", None, None
    if status == 412:
        present = headers.get("KV-Revision")
        return "compare", "answered", None, None if present is None else int(present)
    return kind, "unknown" if kind in WRITES and problem.outcome != "failed" else "refused", None, None


def _both(answer: _Answer) -> tuple[str | None, int | None]:
    """Value and revision of a pair; where the two are not alike, a value that nobody has put."""
    first, second = (each.get or _Record() for each in answer.results)
    if first == second:
        return first.value, first.revision
    return f"{first.value} of {first.revision} beside {second.value} of {second.revision}", first.revision


class Keys:
    """Which keys are in use, what they held, and values of which there is only one each."""

    def __init__(self) -> None:
        self._calls = 0
        self._values = 0
        self._seen: dict[str, Seen] = {}

    def draw(self, rng: Random) -> str:
        """A key for the next call, or the name of a pair."""
        group = self._calls // ((KEYS + PAIRS) * CALLS_OF_KEY)
        self._calls += 1
        number = rng.randrange(KEYS + PAIRS)
        return f"g{group}/k{number}" if number < KEYS else f"g{group}/{PAIR}{number}"

    def draw_call(self, rng: Random, *, reads: bool = False) -> tuple[Kind, str]:
        """What is asked next, nothing but a read if `reads`, and of which key."""
        key = self.draw(rng)
        if is_pair(key):
            return rng.choice(PAIR_READS if reads else PAIR_KINDS), key
        return rng.choice(READS if reads else KINDS), key

    def fresh_value(self) -> str:
        """Never put before."""
        self._values += 1
        return f"v{self._values}"

    def seen(self, key: str) -> Seen | None:
        """What `key` held when it was seen last."""
        return self._seen.get(key)

    def note(self, done: Call) -> None:
        """What the answer to a call tells of its key."""
        if done.outcome != "answered" or done.kind in {"stale", "compare"}:
            return
        if done.kind == "delete" or done.value is None or done.revision is None:
            self._seen.pop(done.key, None)
        else:
            self._seen[done.key] = Seen(done.value, done.revision)


def is_pair(key: str) -> bool:
    """Whether it is the name of two keys that are put together."""
    return key.partition("/")[2].startswith(PAIR)


def whole(key: str) -> Kind:
    """How all that there is of `key` is read."""
    return "both" if is_pair(key) else "get"


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
        reads = number // len(names) % 2 == 1
        avoided = dict.fromkeys(names, 0.0)
        async with session() as http:
            while not self._stopping:
                now = time.monotonic()
                willing = [name for name in names if avoided[name] <= now]
                if not willing:
                    await asyncio.sleep(min(avoided.values()) - now)
                    continue
                replica = own if own in willing else rng.choice(willing)
                kind, key = self._keys.draw_call(rng, reads=reads)
                value, seen = self._keys.fresh_value(), self._keys.seen(key)
                done = await call(http, replica, self._urls[replica], kind, key, value=value, seen=seen)
                self._keys.note(done)
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
                    done = await call(http, name, self._urls[name], whole(key), key, value="")
                    while done.outcome != "answered":
                        await asyncio.sleep(THINK_S)
                        done = await call(http, name, self._urls[name], whole(key), key, value="")
                    self.calls.append(done)

        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as readers:
            for _ in range(8):
                readers.create_task(reader())

    def _used(self) -> list[str]:
        return list(dict.fromkeys(call.key for call in self.calls))
