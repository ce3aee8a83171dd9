"""Many requests of one connection: their order, their bounds, and the bytes of the responses."""

import asyncio
import itertools
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.api.commands import Record
from kvstore.server.http.exchange_queue import MAX_EXCHANGES
from kvstore.server.http.limits import HttpLimits
from tests.unit.kvstore.server.http.fake import Store, request, run

MIB = 1024 * 1024
LAST = request("GET", "/kv/none", "Connection: close")
PROBLEM = "Content-Type: application/problem+json\nCache-Control: no-store\n"
VALUE = (
    "Content-Type: application/octet-stream\nX-Content-Type-Options: nosniff\nCache-Control: no-store\n"
    'ETag: "1"\nKV-Revision: 1\nKV-Create-Revision: 1\nKV-Version: 1\n'
)
JSON = "Content-Type: application/json\nCache-Control: no-store\n"
UNTYPED = '{"type":"urn:kvstore:problem:'


def problem(kind: str, title: str, status: int, detail: str, *, write: bool = True) -> str:
    outcome = ',"outcome":"failed"' if write else ""
    return f'{UNTYPED}{kind}","title":"{title}","status":{status},"detail":"{detail}"{outcome}}}\n'


ABSENT = problem(
    "no-such-key", "The key does not exist", 404, "The key does not exist. PUT it to create it.", write=False
)
TABLE = (
    (request("PUT", "/kv/a", body=b"12"), 200, JSON + 'ETag: "2"\n', '{"key":"a","revision":2,"version":2}\n'),
    (request("PUT", "/kv/b", "Content-Length: 0"), 201, JSON + 'ETag: "2"\n', '{"key":"b","revision":2,"version":1}\n'),
    (request("GET", "/kv/a"), 200, VALUE, "first"),
    (request("GET", "/kv/a", "Connection: keep-alive"), 200, VALUE, "first"),
    (request("GET", "/kv/a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", 200, VALUE, "first"),
    (request("GET", "/kv/a", 'If-None-Match: "1"'), 304, 'ETag: "1"\nCache-Control: no-store\n', None),
    (request("GET", "/kv/nothing%20there"), 404, PROBLEM, ABSENT),
    (
        request("GET", "/kv/a?consistency=stale"),
        200,
        VALUE + "KV-Applied-Slot: 11\nKV-Applied-Revision: 1\nKV-Age-Ms: 4\n",
        "first",
    ),
    (
        request("DELETE", "/kv/a"),
        200,
        JSON,
        '{"key":"a","revision":2,"deleted_revision":1,"version":1}\n',
    ),
    (request("DELETE", "/kv/?prefix="), 200, JSON, '{"revision":2,"deleted":1}\n'),
    (request("GET", "/kv/?prefix=b"), 200, JSON + "KV-Revision: 1\n", '{"revision":1,"records":[],"more":false}\n'),
    (
        request("PUT", "/kv/a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        200,
        JSON + 'ETag: "2"\n',
        '{"key":"a","revision":2,"version":2}\n',
    ),
    (request("PUT", "/kv/a", 'If-Match: "1"'), 200, JSON + 'ETag: "2"\n', '{"key":"a","revision":2,"version":2}\n'),
    (
        request("PUT", "/kv/a", "If-None-Match: *", body=b"x"),
        412,
        PROBLEM + 'ETag: "1"\nKV-Revision: 1\n',
        problem(
            "precondition-failed",
            "The condition does not hold",
            412,
            'Nothing was done: the key is at revision 1. GET the key, and repeat with If-Match: \\"1\\".',
        ),
    ),
    (
        request("POST", "/txn", body=b'{"then": [{"put": {"key": "b", "value": ""}}]}'),
        200,
        JSON,
        '{"succeeded":true,"revision":2,"results":[{"put":{"revision":2,"version":1}}]}\n',
    ),
    (request("GET", "/livez"), 200, None, "ok\n"),
    (
        request("POST", "/kv/a", body=b"abc"),
        405,
        PROBLEM + "Allow: GET, HEAD, PUT, DELETE\n",
        problem(
            "method-not-allowed",
            "The method is not allowed for this path",
            405,
            "POST is not allowed here. Use one of: GET, HEAD, PUT, DELETE.",
        ),
    ),
)
UNREAD_BODY = ("GET /kv/a HTTP/1.1\r\nHost: store\r\nTransfer", "POST /kv/a")
"""How requests begin that may be answered before their body has come, which ends the connection."""
SEQUENCES = (
    *(raw for raw, *_ in TABLE if not raw.decode().startswith(UNREAD_BODY)),
    request("HEAD", "/kv/a"),
    request("PUT", "/kv/a", body=bytes(3000)),
    request("GET", "/kv/a?consistency=odd"),
    request("PUT", "/kv/a", "If-Match: 1"),
    request("PUT", "/kv/a", "Origin: http://elsewhere"),
    request("POST", "/kv/a"),
    request("GET", "/kv/?prefix=", "Accept: application/x-ndjson"),
)
TEXT = "Content-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff\nCache-Control: no-store\n"


@pytest.mark.parametrize(("raw", "status", "fields", "body"), TABLE, ids=lambda value: str(value)[:40])
def test_the_bytes_of_a_response(raw: bytes, status: int, fields: str | None, body: str | None) -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"first")
        answer = await _answers(store, [raw, LAST])
        head = f"HTTP/1.1 {status} [A-Za-z ]+\n{re.escape(fields or TEXT)}"
        if body is not None:
            head += f"Content-Length: {len(body)}\n"
        pattern = head + "\n" + re.escape(body or "") + "HTTP/1.1 404 Not Found\n.*Connection: close\n\n.*"
        assert re.fullmatch(pattern, answer.decode().replace("\r\n", "\n"), re.DOTALL), answer

    run(scenario)


async def _answers(store: Store, pieces: list[bytes]) -> bytes:
    """All that comes back, less the dates."""
    async with await store.wire() as wire:
        for piece in pieces:
            wire.send(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return re.sub(rb"Date: [^\r]*\r\n", b"", await wire.closed())


@given(st.lists(st.sampled_from(SEQUENCES), max_size=8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_responses_are_the_same_however_requests_are_cut(requests: list[bytes], seed: int) -> None:
    data = b"".join([*requests, LAST])
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(len(data)), min(len(data), rng.randrange(6))))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert _in_pieces(pieces) == _one_by_one([*requests, LAST])


def _in_pieces(pieces: list[bytes]) -> bytes:
    answers = b""

    async def scenario(store: Store) -> None:
        nonlocal answers
        answers = await _answers(store, pieces)

    run(scenario)
    return answers


def _one_by_one(requests: list[bytes]) -> bytes:
    """All that comes back where each request has a connection of its own."""
    answers = b""

    async def scenario(store: Store) -> None:
        nonlocal answers
        for each in requests:
            alone = each if each is LAST else each.replace(b"Host: store", b"Host: store\r\nConnection: close", 1)
            alone = alone.replace(b"Connection: keep-alive\r\n", b"")
            answer = await _answers(store, [alone])
            answers += answer if each is LAST else answer.replace(b"Connection: close\r\n", b"", 1)

    run(scenario)
    return answers


def test_one_connection_has_a_bounded_number_of_requests_in_progress() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        count = 3 * MAX_EXCHANGES
        async with await store.wire() as wire:
            wire.send(b"".join(request("GET", f"/kv/{number}") for number in range(count)))
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200  # a while later
            assert store.replica.arrived.qsize() == MAX_EXCHANGES - 1
            store.replica.gate.set()
            assert [(await wire.reply()).status for _ in range(count)] == [404] * count

    run(scenario)


@pytest.mark.parametrize("write", [("PUT", "/kv/a"), ("DELETE", "/kv/a"), ("POST", "/txn")])
def test_a_write_is_not_in_progress_with_requests_before_or_after_it(write: tuple[str, str]) -> None:
    """RFC 9112, 9.3.2. A client that sends a PUT and a GET at once reads what it wrote."""

    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            get = request("GET", "/kv/a")
            wire.send(get + get + request(*write, body=b'{"then": [{"put": {"key": "a", "value": ""}}]}') + get)
            for begun in (2, 1, 1):
                for _ in range(begun):
                    await store.replica.arrived.get()
                assert (await store.call("GET", "/livez")).status == 200
                assert store.replica.arrived.empty()
                late, store.replica.gate = store.replica.gate, asyncio.Event()
                late.set()
                for _ in range(begun):
                    await wire.reply()

    run(scenario)


@pytest.mark.parametrize(
    "refused", [request("GET", "/kv/%"), request("POST", "/kv/a", body=b"x"), request("GET", "/n")]
)
def test_any_number_of_requests_that_are_refused_at_once_are_answered(refused: bytes) -> None:
    async def scenario(store: Store) -> None:
        count = 5000
        async with await store.wire() as wire:
            wire.send(refused * count)
            assert {(await wire.reply()).status for _ in range(count)} <= {400, 404, 405}
            assert (await wire.ask(request("GET", "/livez"))).status == 200

    run(scenario)


def test_a_client_that_does_not_read_its_responses_is_not_read_either() -> None:
    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(MIB), 1, 1, 1)
        count = 200
        async with await store.wire() as wire:
            wire.reader._limit = 1  # type: ignore[attr-defined]  # it reads no further than it must
            wire.send(request("GET", "/kv/a") * count)
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200
            assert store.replica.arrived.qsize() < count // 2
            wire.reader._limit = 4 * MIB  # type: ignore[attr-defined]
            for _ in range(count):
                assert len((await wire.reply()).body) == MIB

    run(scenario)


def test_the_bytes_of_responses_are_not_made_while_the_client_does_not_read() -> None:
    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(MIB), 1, 1, 1)
        count = MAX_EXCHANGES
        store.replica.gate.clear()
        async with await store.wire() as wire:
            wire.reader._limit = 1  # type: ignore[attr-defined]  # it reads no further than it must
            wire.send(request("GET", "/kv/a") * count)
            for _ in range(count):
                await store.replica.arrived.get()
            store.replica.gate.set()
            while "_in_flight 0.0" not in store.metrics.render().decode():
                assert (await store.call("GET", "/livez")).status == 200
            (served,) = (each for each in store.frontend._connections if each._queue)
            assert served._transport is not None
            assert served._transport.get_write_buffer_size() < 2 * MIB
            wire.reader._limit = 4 * MIB  # type: ignore[attr-defined]
            for _ in range(count):
                assert len((await wire.reply()).body) == MIB

    run(scenario)


def test_responses_keep_their_order_when_replies_do_not() -> None:
    async def scenario(store: Store) -> None:
        store.replica.records[b"b"] = Record(b"2", 1, 1, 1)
        async with await store.wire() as wire:
            store.replica.gate.clear()
            wire.send(request("GET", "/kv/a"))
            await store.replica.arrived.get()
            late, store.replica.gate = store.replica.gate, asyncio.Event()
            store.replica.gate.set()
            wire.send(request("GET", "/kv/b") + request("GET", "/livez") + request("GET", "/kv/b"))
            assert await store.replica.arrived.get() == b"b"
            late.set()
            replies = [await wire.reply() for _ in range(4)]
            assert [reply.status for reply in replies] == [404, 200, 200, 200]
            assert [reply.body for reply in replies[1:]] == [b"2", b"ok\n", b"2"]

    run(scenario)


def test_a_request_of_something_else_waits_for_those_of_keys_and_holds_up_those_behind_it() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            put = request("PUT", "/kv/a", body=b"1")
            wire.send(put + request("POST", "/leases", body=b'{"ttl_s": 5}') + put)
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200
            assert store.replica.arrived.empty()
            store.replica.gate.set()
            assert [(await wire.reply()).status for _ in range(3)] == [201, 201, 200]

    run(scenario)


def test_what_waits_on_a_connection_is_not_counted_as_in_flight() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            wire.send(request("GET", "/kv/a") * 2 * MAX_EXCHANGES)
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200
            store.replica.gate.set()
            replies = [await wire.reply() for _ in range(2 * MAX_EXCHANGES)]
            assert {reply.status for reply in replies} == {404}

    run(scenario, HttpLimits(max_in_flight=MAX_EXCHANGES))


def test_a_request_is_in_flight_only_once_it_is_complete() -> None:
    """Heads of PUTs without a body must not keep others from reading and writing."""

    async def scenario(store: Store) -> None:
        heads = [await store.wire() for _ in range(10)]
        for wire in heads:
            first = await wire.ask(request("PUT", "/kv/a", "Content-Length: 3", "Expect: 100-continue"))
            assert first.status == 100
            wire.send(b"ab")
        async with await store.wire() as other:
            assert (await other.ask(request("GET", "/kv/a"))).status == 404
            assert (await other.ask(request("PUT", "/kv/b", body=b"1"))).status == 201
        assert (await heads[0].ask(b"c")).status == 201
        for wire in heads:
            wire.writer.close()

    run(scenario, HttpLimits(max_in_flight=1))


def test_a_body_that_is_refused_for_its_length_is_not_refused_again_for_its_slowness() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        put = request("PUT", "/kv/a", "Transfer-Encoding: chunked")
        async with await store.wire() as wire, await store.wire() as other:
            wire.send(request("GET", "/kv/a") + put)
            await store.replica.arrived.get()
            wire.send(b"9\r\n123456789\r\n")
            assert (await store.call("GET", "/livez")).status == 200
            assert (await other.ask(put)).status == 408  # and so its time is over, too
            store.replica.gate.set()
            assert [(await wire.reply()).status for _ in range(2)] == [404, 413]
        requests = store.metrics.render().decode()
        assert requests.count('method="PUT",route="/kv/",status="408"} 1.0') == 1

    run(scenario, HttpLimits(max_value_bytes=8, body_timeout_ms=1000))


def test_a_client_that_waits_for_100_is_told_after_the_responses_before_it() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            wire.send(request("GET", "/kv/a"))
            wire.send(request("PUT", "/kv/a", "Content-Length: 3", "Expect: 100-continue"))
            await store.replica.arrived.get()
            store.replica.gate.set()
            assert [(await wire.reply()).status for _ in range(2)] == [404, 100]
            assert (await wire.ask(b"abc")).status == 201

    run(scenario)


@pytest.mark.parametrize("last", [request("PUT", "/kv/a", body=b"1"), request("GET", "/status")])
def test_a_client_that_closes_its_side_gets_the_responses_that_it_waits_for(last: bytes) -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            wire.send(request("GET", "/kv/a") + last)
            wire.writer.write_eof()
            await store.replica.arrived.get()
            assert (await store.call("GET", "/livez")).status == 200
            store.replica.gate.set()
            assert (await wire.reply()).status == 404
            assert (await wire.reply()).headers["connection"] == "close"
            assert await wire.closed() == b""

    run(scenario)


def test_a_client_that_closes_its_side_within_a_body_is_told_that_it_ends_early() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(request("PUT", "/kv/a", "Content-Length: 3") + b"ab")
            wire.writer.write_eof()
            reply = await wire.reply()
            assert (reply.status, reply.problem()["outcome"]) == (400, "failed")
            assert "ends early" in reply.problem()["detail"]
            assert await wire.closed() == b""
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_client_that_leaves_with_requests_in_progress_takes_no_write_along() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        wire = await store.wire()
        wire.send(request("PUT", "/kv/a", body=b"1") + request("PUT", "/kv/b", body=b"2"))
        await store.replica.arrived.get()
        wire.writer.transport.abort()
        store.replica.gate.set()
        await store.replica.done.get()
        while "_in_flight 0.0" not in store.metrics.render().decode():
            assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


FOREIGN = ["Origin: http://elsewhere", "Origin: null", "Sec-Fetch-Site: cross-site"]
WRITES = [
    ("PUT", "/kv/a", b"v"),
    ("PUT", "/kv/a?ttl_s=5", b"v"),
    ("DELETE", "/kv/a", b""),
    ("DELETE", "/kv/?prefix=", b""),
    ("POST", "/txn", b"{}"),
    ("POST", "/leases", b'{"ttl_s": 5}'),
    ("POST", "/locks/l", b'{"ttl_s": 5}'),
    ("DELETE", "/members/n3", b""),
    ("POST", "/nothing", b""),
]


def test_no_write_is_taken_from_a_page_of_another_site(subtests: pytest.Subtests) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            for field, (method, target, body) in itertools.product(FOREIGN, WRITES):
                with subtests.test(field=field, method=method, target=target):
                    reply = await wire.ask(request(method, target, field, body=body))
                    assert (reply.status, reply.problem()["type"]) == (403, "urn:kvstore:problem:foreign-page")
                    assert (await wire.ask(request("GET", "/kv/a", field))).status == 404
                    assert store.replica.machine.revision == 0
            own = request("PUT", "/kv/a", "Origin: http://store", "Sec-Fetch-Site: same-origin", body=b"v")
            assert (await wire.ask(own)).status == 201

    run(scenario)
