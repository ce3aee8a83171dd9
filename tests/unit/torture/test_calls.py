"""Requests of a client, each recorded with its outcome, for every kind of answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from tests.torture.calls import (
    CALLS_PER_KEY,
    HALVES,
    KEYS,
    PAIRS,
    KeyPool,
    LastSeen,
    call,
    is_pair,
    session,
    whole,
)
from tests.torture.clients import RecordingClients
from tests.torture.history import WRITES, CallKind, CallOutcome, RecordedCall

BREAK = ""
"""As an answer: the connection ends instead."""


def answer(status: int, body: str, *fields: str) -> str:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, "", body])


PUT = answer(201, '{"key": "k", "revision": 7, "version": 1}')
DELETED = answer(200, '{"key": "k", "revision": 8, "deleted_revision": 7, "version": 1}')
ABSENT = answer(404, '{"type": "urn:kvstore:problem:no-such-key", "status": 404, "outcome": "failed"}')
FAILED = answer(503, '{"type": "urn:kvstore:problem:no-leader", "status": 503, "outcome": "failed"}')
UNKNOWN = answer(503, '{"type": "urn:kvstore:problem:timeout", "status": 503, "outcome": "unknown"}')
MISSED = answer(412, '{"type": "urn:kvstore:problem:precondition-failed", "outcome": "failed"}', "KV-Revision: 9")
MISSED_ABSENT = answer(412, '{"type": "urn:kvstore:problem:precondition-failed", "outcome": "failed"}')


def pair(succeeded: str, first: str, second: str) -> str:
    results = f'[{{"get": {first}}}, {{"get": {second}}}]'
    return answer(200, f'{{"succeeded": {succeeded}, "revision": 12, "results": {results}}}')


DONE = answer(200, '{"succeeded": true, "revision": 12, "results": [{"put": {}}, {"put": {}}]}')
V3 = '{"value": "v3", "revision": 3}'
UNREADABLE = answer(503, '{"type": "urn:kvstore:problem:timeout", "status": 503}')


@asynccontextmanager
async def replica(*answers: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Its address, and the first line of each request that it got. It gives these answers in turn."""
    requests: list[str] = []
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            requests.append(head.splitlines()[0])
            text = next(left)
            if text == BREAK:
                break
            writer.write(text.encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    server.close()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return ""
    lengths = [line.split()[1] for line in head.splitlines() if line.lower().startswith("content-length:")]
    await reader.readexactly(int(lengths[0]) if lengths else 0)
    return head


async def ask(kind: CallKind, *answers: str, seen: LastSeen | None = None) -> tuple[list[RecordedCall], list[str]]:
    async with replica(*answers) as (url, requests), session() as http:
        calls = [await call(http, "n1", url, kind, "g0/k1", value="v1", seen=seen) for _ in answers]
    return calls, requests


@pytest.mark.parametrize(
    ("kind", "given", "outcome", "value", "revision"),
    [
        ("put", PUT, "answered", "v1", 7),
        ("delete", DELETED, "answered", None, 8),
        ("delete", ABSENT, "answered", None, None),
        ("get", answer(200, "v0", "KV-Revision: 5"), "answered", "v0", 5),
        ("get", ABSENT, "answered", None, None),
        ("quorum", FAILED, "refused", None, None),
        ("put", FAILED, "refused", "v1", None),
        ("put", UNKNOWN, "unknown", "v1", None),
        ("delete", UNREADABLE, "unknown", None, None),
        ("put", BREAK, "unknown", "v1", None),
        ("get", BREAK, "refused", None, None),
    ],
)
def test_a_request_is_recorded_with_its_outcome(
    kind: CallKind, given: str, outcome: str, value: str | None, revision: int | None
) -> None:
    (made,), requests = asyncio.run(ask(kind, given))
    assert (made.kind, made.outcome, made.value, made.revision) == (kind, outcome, value, revision)
    assert made.called_ns <= made.returned_ns
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("kind", "given", "became", "value", "revision"),
    [
        ("swap", PUT, "swap", "v1", 7),
        ("swap", MISSED, "compare", None, 9),
        ("swap", MISSED_ABSENT, "compare", None, None),
        ("swap", UNKNOWN, "swap", "v1", None),
        ("pair", DONE, "pair", "v1", 12),
        ("pair-swap", DONE, "pair-swap", "v1", 12),
        ("pair-swap", pair("false", V3, V3), "both", "v3", 3),
        ("both", pair("true", V3, V3), "both", "v3", 3),
        ("both", pair("true", "null", "null"), "both", None, None),
        ("both", pair("true", V3, "null"), "both", "v3 of 3 beside None of None", 3),
        ("half", answer(200, "v0", "KV-Revision: 5"), "half", "v0", 5),
    ],
)
def test_a_condition_or_a_transaction_is_recorded_with_its_outcome(
    kind: CallKind, given: str, became: CallKind, value: str | None, revision: int | None
) -> None:
    (made,), _ = asyncio.run(ask(kind, given, seen=LastSeen("v0", 5)))
    assert (made.kind, made.value, made.revision) == (became, value, revision)
    assert made.expected == ("v0" if kind in {"swap", "pair-swap"} else None)
    assert made.outcome == ("unknown" if given is UNKNOWN else "answered")


def test_the_last_seen_record_is_the_condition_of_the_next_swap() -> None:
    keys = KeyPool()

    def done(
        kind: CallKind, value: str | None, revision: int | None, outcome: CallOutcome = "answered"
    ) -> RecordedCall:
        return RecordedCall(kind, "k", "n1", 0, 1, outcome, value, revision)

    assert keys.seen("k") is None
    keys.note(done("put", "v1", 1))
    keys.note(done("put", "v2", None, "unknown"))
    keys.note(done("stale", "v0", 0))
    keys.note(done("compare", None, 7))
    assert keys.seen("k") == LastSeen("v1", 1)
    keys.note(done("get", None, None))
    assert keys.seen("k") is None


def test_a_pair_is_read_in_one_transaction() -> None:
    assert not is_pair("g0/k1")
    assert whole("g0/k1") == "get"
    assert is_pair("g0/pair5")
    assert whole("g0/pair5") == "both"
    assert len(set(HALVES)) == 2


def test_the_consistency_of_a_read_is_requested() -> None:
    _, (quorum,) = asyncio.run(ask("quorum", ABSENT))
    assert quorum == "GET /kv/g0/k1?consistency=quorum HTTP/1.1"
    _, (linearizable,) = asyncio.run(ask("get", ABSENT))
    assert linearizable == "GET /kv/g0/k1 HTTP/1.1"


def test_a_write_is_not_sent_again_when_a_connection_in_use_breaks() -> None:
    calls, requests = asyncio.run(ask("put", PUT, BREAK))
    assert [made.outcome for made in calls] == ["answered", "unknown"]
    assert len(requests) == 2


def test_a_request_without_a_listener_is_refused() -> None:
    async def story() -> RecordedCall:
        async with replica() as (url, _):
            pass
        async with session() as http:
            return await call(http, "n1", url, "put", "k", value="v")

    assert asyncio.run(story()).outcome == "refused"


def test_keys_are_shared_for_a_while_and_values_never() -> None:
    keys, rng = KeyPool(), Random(1)
    half = (KEYS + PAIRS) * CALLS_PER_KEY
    drawn = [keys.draw(rng) for _ in range(2 * half)]
    assert len(set(drawn[:half])) == KEYS + PAIRS
    assert sum(map(is_pair, set(drawn[:half]))) == PAIRS
    assert not set(drawn[:half]) & set(drawn[half:])
    assert len({keys.unique_value() for _ in range(100)}) == 100


def test_every_second_client_of_a_replica_only_reads() -> None:
    async def kinds_of(number: int) -> set[str]:
        done = answer(200, '{"revision": 1, "results": [{}, {}]}', "KV-Revision: 1")
        async with replica(*[done] * 1000) as (url, _):
            clients = RecordingClients(lambda: {"n1": url}, seed=1, readers=True)
            async with asyncio.timeout(300), asyncio.TaskGroup() as group:
                group.create_task(clients.run(number))
                while clients.answered < 30:  # noqa: ASYNC110 - a counter sets no event
                    await asyncio.sleep(0.001)
                clients.stop()
        return {made.kind for made in clients.calls}

    assert asyncio.run(kinds_of(0)) & WRITES
    assert asyncio.run(kinds_of(1)) == {"get", "stale", "both", "half"}


def test_a_client_leaves_a_replica_that_fails_it_for_another_one() -> None:
    async def story() -> list[RecordedCall]:
        done = answer(200, '{"revision": 1, "results": [{}, {}]}', "KV-Revision: 1")
        async with replica(*[FAILED] * 1000) as (bad, _), replica(*[done] * 1000) as (good, __):
            clients = RecordingClients(lambda: {"bad": bad, "good": good}, seed=1)
            async with asyncio.timeout(300), asyncio.TaskGroup() as group:
                group.create_task(clients.run(0))
                while clients.answered < 3:  # noqa: ASYNC110 - a counter sets no event
                    await asyncio.sleep(0.001)
                clients.stop()
        return clients.calls

    calls = asyncio.run(story())
    assert calls[0].replica == "bad"
    assert calls[1].replica == "good"
