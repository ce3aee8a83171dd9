"""Requests of a client, recorded with their outcomes, and the keys that the clients of a run share."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from kvstore.client import NO_SUCH_KEY, ConnectionLostError, never_resend
from tests.torture.history import SWAPS, WRITES, CallKind, CallOutcome, RecordedCall

TIMEOUT_S = 4.0
"""Time for an answer; a replica ends each request within 3 s."""
KINDS: tuple[CallKind, ...] = ("put", "put", "swap", "swap", "delete", "get", "get", "get", "get", "quorum", "stale")
READS: tuple[CallKind, ...] = ("get", "get", "get", "get", "stale")
PAIR_KINDS: tuple[CallKind, ...] = ("pair", "pair", "pair-swap", "pair-swap", "both", "both", "half", "half")
PAIR_READS: tuple[CallKind, ...] = ("both", "half")
KEYS = 5
"""Number of keys in use at a time: few, so that clients contend for each of them."""
PAIRS = 2
PAIR = "pair"
HALVES = ("a", "b")
CALLS_PER_KEY = 150
"""Mean number of calls of a key before new keys are used: a longer history takes too long to check."""


class LastSeen(msgspec.Struct, frozen=True):
    """The record of a key that any client read or put last."""

    value: str
    revision: int


class _CallArguments(NamedTuple):
    """The arguments of `call`."""

    kind: CallKind
    key: str
    value: str
    seen: LastSeen | None


class _TransactionRecord(msgspec.Struct):
    """The result of a get in a transaction; an absent key has no revision."""

    value: str | None = None
    revision: int | None = None


class _TransactionResult(msgspec.Struct):
    get: _TransactionRecord | None = None


class _Body(msgspec.Struct):
    """The used fields of an answer to a write, or of a problem."""

    revision: int | None = None
    type: str = ""
    outcome: str = "unknown"
    succeeded: bool = True
    results: list[_TransactionResult] = []


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the connections of one client."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, middlewares=(never_resend,)) as opened:
        yield opened


async def call(
    http: aiohttp.ClientSession,
    replica: str,
    url: str,
    kind: CallKind,
    key: str,
    *,
    value: str,
    seen: LastSeen | None = None,
) -> RecordedCall:
    """Send one request to the replica at `url`; a swap expects the record in `seen`, None for an absent key."""
    called_ns = time.monotonic_ns()
    writes = kind in WRITES
    expected = seen.value if kind in SWAPS and seen is not None else None
    outcome: CallOutcome = "refused"
    read_value, revision = None, None
    try:
        async with _request(http, url, _CallArguments(kind, key, value, seen)) as response:
            body, status, headers = await response.read(), response.status, response.headers
    except aiohttp.ClientConnectorError:
        pass  # nothing was sent
    except (ConnectionLostError, aiohttp.ClientError, TimeoutError):
        outcome = "unknown" if writes else "refused"
    else:
        kind, outcome, read_value, revision = _interpret(kind, status, headers, body)
    put = kind in WRITES and kind != "delete"
    returned_ns = time.monotonic_ns()
    return RecordedCall(
        kind, key, replica, called_ns, returned_ns, outcome, value if put else read_value, revision, expected
    )


def _request(
    http: aiohttp.ClientSession, url: str, arguments: _CallArguments
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    kind, key, value, seen = arguments
    if kind in {"pair", "pair-swap", "both"}:
        return http.post(f"{url}/txn", data=_transaction(arguments))
    half = f"/{HALVES[sum(value.encode()) % 2]}" if kind == "half" else ""
    consistency = f"?consistency={kind}" if kind in {"quorum", "stale"} else ""
    target = URL(f"{url}/kv/{quote(key + half)}{consistency}", encoded=True)
    headers = {}
    if kind == "swap":
        headers = {"If-Match": f'"{seen.revision}"'} if seen is not None else {"If-None-Match": "*"}
    method = "PUT" if kind in {"put", "swap"} else "DELETE" if kind == "delete" else "GET"
    return http.request(method, target, data=value if method == "PUT" else None, headers=headers)


def _transaction(arguments: _CallArguments) -> bytes:
    """Return a transaction that reads or puts both keys of a pair; a swap compares the first key for both."""
    kind, key, value, seen = arguments
    keys = [f"{key}/{half}" for half in HALVES]
    reads = [{"get": {"key": each}} for each in keys]
    if kind == "both":
        return msgspec.json.encode({"then": reads})
    puts = [{"put": {"key": each, "value": value}} for each in keys]
    if kind == "pair":
        return msgspec.json.encode({"then": puts})
    condition = {"revision": seen.revision} if seen is not None else {"exists": False}
    return msgspec.json.encode({"compare": [{"key": keys[0], **condition}], "then": puts, "else": reads})


def _interpret(
    kind: CallKind, status: int, headers: Mapping[str, str], body: bytes
) -> tuple[CallKind, CallOutcome, str | None, int | None]:
    """Return kind, outcome, value read and revision of an answered call; a swap that fails has the kind of a read."""
    if status in {200, 201}:
        if kind not in WRITES and kind != "both":
            return kind, "answered", body.decode(), int(headers["KV-Revision"])
        answer = msgspec.json.decode(body, type=_Body)
        if kind in WRITES and answer.succeeded:
            return kind, "answered", None, answer.revision
        return "both", "answered", *_both(answer)
    problem = msgspec.json.decode(body, type=_Body)
    if status == 404 and problem.type == NO_SUCH_KEY:
        return kind, "answered", None, None
    if status == 412:
        present = headers.get("KV-Revision")
        return "compare", "answered", None, None if present is None else int(present)
    return kind, "unknown" if kind in WRITES and problem.outcome != "failed" else "refused", None, None


def _both(answer: _Body) -> tuple[str | None, int | None]:
    """Return value and revision of a pair; two different records make a value that was never put."""
    first, second = (each.get or _TransactionRecord() for each in answer.results)
    if first == second:
        return first.value, first.revision
    return f"{first.value} of {first.revision} beside {second.value} of {second.revision}", first.revision


class KeyPool:
    """The keys in use, their last seen records, and values that are unique within a run."""

    def __init__(self) -> None:
        self._calls = 0
        self._values = 0
        self._seen: dict[str, LastSeen] = {}

    def draw(self, rng: Random) -> str:
        """Return a key, or the name of a pair, for the next call."""
        group = self._calls // ((KEYS + PAIRS) * CALLS_PER_KEY)
        self._calls += 1
        number = rng.randrange(KEYS + PAIRS)
        return f"g{group}/k{number}" if number < KEYS else f"g{group}/{PAIR}{number}"

    def draw_call(self, rng: Random, *, reads: bool = False) -> tuple[CallKind, str]:
        """Return kind and key of the next call, which is a read if `reads`."""
        key = self.draw(rng)
        if is_pair(key):
            return rng.choice(PAIR_READS if reads else PAIR_KINDS), key
        return rng.choice(READS if reads else KINDS), key

    def unique_value(self) -> str:
        """Return a value that was never put."""
        self._values += 1
        return f"v{self._values}"

    def seen(self, key: str) -> LastSeen | None:
        """Return the last seen record of `key`."""
        return self._seen.get(key)

    def note(self, done: RecordedCall) -> None:
        """Remember the record that a call read or wrote."""
        if done.outcome != "answered" or done.kind in {"stale", "compare"}:
            return
        if done.kind == "delete" or done.value is None or done.revision is None:
            self._seen.pop(done.key, None)
        else:
            self._seen[done.key] = LastSeen(done.value, done.revision)


def is_pair(key: str) -> bool:
    """Return whether `key` is the name of two keys that are put together."""
    return key.partition("/")[2].startswith(PAIR)


def whole(key: str) -> CallKind:
    """Return the kind of call that reads all of `key`."""
    return "both" if is_pair(key) else "get"
