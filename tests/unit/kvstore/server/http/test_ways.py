"""The two ways of a request through a connection, and how they go together."""

import asyncio
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.api.commands import Record
from kvstore.server.http import connection
from kvstore.server.http.head import NotPlainError, Plain
from kvstore.server.http.limits import Limits
from kvstore.server.http.turns import Asker, Turn, Turns
from tests.unit.kvstore.server.http.fake import Store, Wire, request, run

MIB = 1024 * 1024
LAST = request("GET", "/kv/a", "Connection: close")
ANY = (
    request("PUT", "/kv/a", body=b"first"),
    request("PUT", "/kv/b", "Content-Length: 0"),
    request("GET", "/kv/a"),
    request("GET", "/kv/a", "Connection: keep-alive"),
    request("GET", "/kv/nothing%20there"),
    request("HEAD", "/kv/a"),
    request("DELETE", "/kv/a"),
    request("GET", "/livez"),
    request("GET", "/kv/a?consistency=stale"),
    request("GET", "/kv/a?consistency=odd"),
    request("PUT", "/kv/a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
    request("PUT", "/kv/a", "If-Match: 1"),
    request("PUT", "/kv/a", body=bytes(3000)),
    request("POST", "/kv/a"),
)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys of the requests that went the short way."""
    keys: list[bytes] = []
    begin = Turns.begin

    def noted(self: Turns, asker: Asker, plain: Plain) -> Turn:
        keys.append(plain.key)
        return begin(self, asker, plain)

    monkeypatch.setattr(Turns, "begin", noted)
    return keys


def test_a_request_in_two_pieces_goes_the_short_way(way: str, begun: list[bytes]) -> None:
    """As many clients send it: the head, then the body."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await _ready(wire)
            for _ in range(3):
                wire.send(request("PUT", "/kv/a", "Content-Length: 3"))
                await asyncio.sleep(0)
                assert (await wire.ask(b"abc")).status in (200, 201)

    run(scenario)
    assert begun == ([b"a"] * 3 if way == "short" else [])


async def _ready(wire: Wire) -> None:
    """What comes with the connection itself finds aiohttp not waiting yet."""
    assert (await wire.ask(request("GET", "/livez"))).status == 200


def test_the_rest_of_a_request_is_not_waited_for_without_end(
    begun: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HOLD_S", 0.01)

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await _ready(wire)
            slow = await wire.ask(request("PUT", "/kv/a", "Content-Length: 3") + b"ab")
            assert slow.status == 408
            assert await wire.closed() == b""

    run(scenario, Limits(body_timeout_ms=50))
    assert begun == []


def test_one_connection_has_a_bounded_number_of_requests_under_way(way: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        count = 3 * connection.MAX_TURNS
        async with await store.wire() as wire:
            await _ready(wire)
            wire.send(b"".join(request("PUT", f"/kv/{number}", body=b"v") for number in range(count)))
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200  # a while later
            most = connection.MAX_TURNS if way == "short" else 1
            assert store.replica.arrived.qsize() == most - 1
            store.replica.gate.set()
            for number in range(count):
                assert (await wire.reply()).body.startswith(b'{"key":"%d",' % number)

    run(scenario)


def test_who_asks_much_and_takes_nothing_is_asked_for_nothing_more() -> None:
    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(MIB), 1, 1, 1)
        count = 200
        async with await store.wire() as wire:
            await _ready(wire)
            wire.reader._limit = 1  # type: ignore[attr-defined]  # it reads no further than it must
            wire.send(request("GET", "/kv/a") * count)
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200
            assert store.replica.arrived.qsize() < count // 2
            wire.reader._limit = 4 * MIB  # type: ignore[attr-defined]
            for _ in range(count):
                assert len((await wire.reply()).body) == MIB

    run(scenario)


def test_answers_keep_their_order_when_replies_do_not() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            await _ready(wire)
            store.replica.gate.clear()
            wire.send(request("PUT", "/kv/a", body=b"1"))
            await store.replica.arrived.get()
            late, store.replica.gate = store.replica.gate, asyncio.Event()
            store.replica.gate.set()
            wire.send(request("PUT", "/kv/b", body=b"2") + request("GET", "/livez"))
            assert (await store.call("GET", "/livez")).status == 200
            late.set()
            assert [(await wire.reply()).body[:11] for _ in range(3)] == [b'{"key":"a",', b'{"key":"b",', b"ok\n"]

    run(scenario)


@given(st.lists(st.sampled_from(ANY), max_size=8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_answer_the_same_however_requests_are_cut(requests: list[bytes], seed: int) -> None:
    data = b"".join(requests) + LAST
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(len(data)), min(len(data), rng.randrange(6))))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert _answers(pieces, short=True) == _answers(pieces, short=False)


def _answers(pieces: list[bytes], *, short: bool) -> bytes:
    """All that comes back, less the dates."""
    answers = b""

    async def scenario(store: Store) -> None:
        nonlocal answers
        async with await store.wire() as wire:
            await _ready(wire)
            for piece in pieces:
                wire.send(piece)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            answers = await wire.closed()

    def refuse(*_: object) -> None:
        raise NotPlainError

    with pytest.MonkeyPatch.context() as patch:
        if not short:
            patch.setattr(connection, "scan", refuse)
        run(scenario)
    return re.sub(rb"Date: [^\r]*", b"", answers)


def test_a_client_that_leaves_with_requests_under_way_takes_no_write_along() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        wire = await store.wire()
        await _ready(wire)
        wire.send(request("PUT", "/kv/a", body=b"1") + request("PUT", "/kv/b", body=b"2"))
        await store.replica.arrived.get()
        wire.writer.transport.abort()
        store.replica.gate.set()
        await store.replica.done.get()
        while "_in_flight 0.0" not in store.metrics.render().decode():
            assert (await store.call("GET", "/livez")).status == 200

    run(scenario)
