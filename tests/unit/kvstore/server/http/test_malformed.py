import asyncio
from contextlib import suppress

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.server.http.limits import HttpLimits
from tests.unit.kvstore.server.http.fake import Store, request, run

GET = request("GET", "/kv/a")
NOT_HTTP = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00",
    "binary": b"\xff\xfe\xfd\r\n\r\n",
    "unknown method": b"FOO /kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower case method": b"get /kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": b"GET /kv/a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in target": b"GET /kv/a\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "raw byte in target": b"GET /kv/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "raw utf-8 in target": b"GET /kv/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "broken authority": b"GET http://[::1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "authority that upsets the URL library": b"GET http://[]@/kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "no authority": b"GET http:///kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "star without options": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "http/0.9": b"GET /kv/a\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/2.0": b"GET /kv/a HTTP/2.0\r\nHost: a\r\n\r\n",
    "http/1.2": b"GET /kv/a HTTP/1.2\r\nHost: a\r\n\r\n",
    "connect to nothing": b"CONNECT    \r\nHost: a\r\n\r\n",
    "no host": b"GET /kv/a HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /kv/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no carriage return": b"GET /kv/a HTTP/1.1\nHost: a\n\n",
    "folded header": b"GET /kv/a HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "space before colon": b"GET /kv/a HTTP/1.1\r\nHost : a\r\n\r\n",
    "length and chunks": request("PUT", "/kv/a", "Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "two lengths": request("PUT", "/kv/a", "Content-Length: 3", "Content-Length: 3") + b"abc",
    "length no number": request("PUT", "/kv/a", "Content-Length: abc"),
    "length signed": request("PUT", "/kv/a", "Content-Length: +3") + b"abc",
    "length beyond numbers": request("PUT", "/kv/a", "Content-Length: 184467440737095516159"),
    "coding without chunks": request("PUT", "/kv/a", "Transfer-Encoding: gzip") + b"0\r\n\r\n",
    "unknown coding": request("PUT", "/kv/a", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "broken chunk": request("PUT", "/kv/a", "Transfer-Encoding: chunked") + b"zz\r\nabc\r\n0\r\n\r\n",
    "long target": request("GET", "/kv/" + "a" * 9000),
    "long header": request("GET", "/kv/a", "X: " + "a" * 9000),
    "many headers": request("GET", "/kv/a", *["X: a"] * 200),
}
OTHER_STATUS = {
    "unknown method": (501, "unknown-method"),
    "lower case method": (501, "unknown-method"),
    "connect to nothing": (505, "unsupported-version"),
    "http/0.9": (505, "unsupported-version"),
    "http/2 preface": (505, "unsupported-version"),
    "http/2.0": (505, "unsupported-version"),
    "http/1.2": (505, "unsupported-version"),
    "long target": (414, "target-too-long"),
    "long header": (431, "head-too-large"),
    "many headers": (431, "head-too-large"),
    "unknown coding": (501, "unknown-transfer-coding"),
}
"""Requests that are valid, but not for this server."""


@pytest.mark.parametrize("target", ["/kv/\u00e9", "/kv/a b", "/kv/a\x01"])
def test_a_key_that_is_not_escaped_is_answered_with_the_rule(target: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert "Percent-encode" in (await wire.ask(request("GET", target))).problem()["detail"]

    run(scenario)


def test_what_is_not_http_gets_a_problem_and_the_end(subtests: pytest.Subtests) -> None:
    async def scenario(store: Store) -> None:
        for what, sent in NOT_HTTP.items():
            async with await store.wire() as wire:
                with subtests.test(what):
                    reply = await wire.ask(sent)
                    status, kind = OTHER_STATUS.get(what, (400, "malformed-request"))
                    assert reply.status == status
                    assert reply.headers["connection"] == "close"
                    problem = reply.problem()
                    assert problem["type"] == f"urn:kvstore:problem:{kind}"
                    assert problem.get("outcome", "failed") == "failed"
                    assert await wire.closed() == b""
            with subtests.test(what, after=True):
                assert store.replica.arrived.empty()
                assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


@pytest.mark.parametrize("rest", [b"zz\r\nabc\r\n0\r\n\r\n", b"\r\n\r\n", b"-1\r\n"])
def test_a_body_that_breaks_halfway_is_answered_once_and_at_once(rest: bytes) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            first = await wire.ask(request("PUT", "/kv/a", "Transfer-Encoding: chunked", "Expect: 100-continue"))
            assert first.line == "HTTP/1.1 100 Continue"
            wire.send(b"3\r\nabc\r\n")
            reply = await wire.ask(rest)
            assert reply.status == 400
            assert reply.problem()["outcome"] == "failed"
            assert await wire.closed() == b""
        assert store.replica.arrived.empty()

    run(scenario, HttpLimits(body_timeout_ms=60_000))


def test_a_body_that_nobody_reads_may_break() -> None:
    """It is answered before its body has come; what comes then is thrown away, and is nothing to complain about."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request("POST", "/kv/a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
            assert reply.status == 405
            wire.send(b"zz\r\n")
            assert await wire.closed() == b""

    run(scenario)


def test_garbage_behind_a_request_in_progress_waits_for_its_answer() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as wire:
            wire.send(request("PUT", "/kv/a", body=b"1"))
            await store.replica.arrived.get()
            wire.send(b"garbage\r\n\r\n")
            store.replica.gate.set()
            assert (await wire.reply()).status == 201
            assert (await wire.reply()).status == 400
            assert await wire.closed() == b""

    run(scenario)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            puts = [request("PUT", f"/kv/{i}", body=str(i).encode()) for i in range(100)]
            wire.send(b"".join(puts))
            assert [(await wire.reply()).status for _ in puts] == [201] * 100
            wire.send(b"".join(request("GET", f"/kv/{i}") for i in range(100)))
            assert [(await wire.reply()).body for _ in puts] == [str(i).encode() for i in range(100)]

    run(scenario)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("ftp://store/kv/a", "the scheme ftp"),
        ("foo://store/kv/a", "the scheme foo"),
        ("ws://store/kv/a", "the scheme ws"),
        ("http://user@store/kv/a", "a user name"),
        ("http://user:hunter2@store/kv/a", "a user name"),
        ("HTTP://@store/kv/a", "a user name"),
    ],
)
def test_an_absolute_target_with_another_scheme_or_a_user_name_is_refused(target: str, why: str) -> None:
    """RFC 9110, 4.2.4 and 7.4."""

    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        async with await store.wire() as wire:
            for method in ("GET", "PUT", "OPTIONS"):
                reply = await wire.ask(request(method, target))
                assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:malformed-request")
                assert why in reply.problem()["detail"]
                assert "hunter2" not in reply.problem()["detail"]
            assert (await wire.ask(GET)).body == b"1"

    run(scenario)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://store/kv/a", 200),
        ("http://store:8001/kv/a?consistency=stale", 200),
        ("HTTP://store/kv/a", 200),
        ("https://store/kv/a", 200),
        ("http://xn--/kv/a", 400),
        ("http://store", 200),
        ("http://store?x=1", 400),
        ("http://store/kv//", 404),
        ("/kv/a#b", 400),
        ("/kv/a?consistency=stale#b", 400),
    ],
)
def test_absolute_targets_name_the_same_and_fragments_nothing(target: str, status: int) -> None:
    async def scenario(store: Store) -> None:
        await store.call("PUT", "/kv/a", b"1")
        async with await store.wire() as wire:
            assert (await wire.ask(request("GET", target))).status == status
            assert (await wire.ask(GET)).body == b"1"

    run(scenario)


@pytest.mark.parametrize(
    "data",
    [
        request("OPTIONS", "*"),
        request("CONNECT", "store:80"),
        request("CONNECT", "/kv/a"),
        request("POST", "/kv/a", body=b"abc"),
    ],
)
def test_methods_that_mean_nothing_here_are_a_clean_4xx_and_the_connection_goes_on(data: bytes) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(data)
            assert reply.status in (400, 404, 405)
            assert reply.problem()
            if reply.headers.get("connection") != "close":
                assert (await wire.ask(GET)).status == 404

    run(scenario)


def test_options_of_the_whole_server_names_all_methods() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await wire.ask(request("OPTIONS", "*"))
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, PUT, POST, DELETE")
            assert (await wire.ask(GET)).status == 404

    run(scenario)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "options", ["close", "CLOSE", "foo, Close", "close,foo", " , close", "keep-alive, close", "close, keep-alive"]
)
def test_close_ends_the_connection_in_any_case_and_place(version: str, options: str) -> None:
    """RFC 9112, 9.3."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            sent = f"GET /livez HTTP/{version}\r\nHost: a\r\nConnection: {options}\r\n\r\n".encode()
            reply = await wire.ask(sent + GET)
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await wire.closed() == b""

    run(scenario)


def test_an_upgrade_is_not_taken_up() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(request("GET", "/livez", "Connection: upgrade", "Upgrade: websocket") + GET)
            assert (await wire.reply()).status == 200
            assert (await wire.reply()).status == 404

    run(scenario)


def test_http_1_0_closes_unless_asked_not_to() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            kept = await wire.ask(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (kept.status, kept.headers["connection"]) == (200, "keep-alive")
            last = await wire.ask(b"GET /livez HTTP/1.0\r\n\r\n")
            assert (last.status, last.headers["connection"]) == (200, "close")
            assert await wire.closed() == b""

    run(scenario)


@pytest.mark.parametrize("sent", [b"", b"GET /kv/a HT", b"GET /kv/a HTTP/1.1\r\nHost: a\r\n", GET])
def test_a_connection_without_a_whole_request_is_closed_in_the_end(sent: bytes) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(sent)
            if sent == GET:
                assert (await wire.reply()).status == 404
            assert await wire.closed() == b""

    run(scenario, HttpLimits(keepalive_timeout_ms=100))


def test_headers_that_drip_do_not_hold_a_connection() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(b"GET /kv/a HTTP/1.1\r\n")
            ended = asyncio.create_task(wire.closed())
            while not ended.done():
                wire.send(b"X: y\r\n")
                await asyncio.wait([ended], timeout=0.01)
            await asyncio.gather(ended, return_exceptions=True)
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario, HttpLimits(keepalive_timeout_ms=100))


_FRAGMENTS = st.sampled_from(
    b"GET |PUT |DELETE |OPTIONS *|CONNECT a:1|/kv/|/kv/a|%|%zz|?|consistency=|#|http://|[|]|@|xn--|:99999| HTTP/1.1\r\n"
    b"| HTTP/1.0\r\n|Host: a\r\n|\r\n|Content-Length: |3\r\n|0\r\n\r\n|abc|Transfer-Encoding: chunked\r\n|\x00|\xff"
    b"|Expect: 100-continue\r\n|Connection: upgrade\r\nUpgrade: websocket\r\n|Connection: close\r\n"
    b"|GET /kv/a HTTP/1.1\r\nHost: a\r\n\r\n|PUT /kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".split(
        b"|"
    )
)
_GARBAGE = st.lists(st.lists(st.one_of(_FRAGMENTS, st.binary(max_size=8)), max_size=12).map(b"".join), max_size=3)


def test_no_bytes_bring_it_down() -> None:
    """Each example is sent in pieces, the connection then left half open: the responses are well-formed, with a
    status below 500, 501 or 505, and the server goes on."""

    async def scenario(store: Store) -> None:
        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(_GARBAGE)
        def examples(pieces: list[bytes]) -> None:
            asyncio.run_coroutine_threadsafe(_survives(store, pieces), loop).result(20)

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(examples)

    run(scenario, HttpLimits(keepalive_timeout_ms=20, body_timeout_ms=20))


async def _lives(store: Store) -> None:
    """A slow client may find a new connection closed already, because it was idle for longer than the limit."""
    while True:
        with suppress(aiohttp.ClientConnectionError):
            assert (await store.call("GET", "/livez")).status == 200
            return


async def _survives(store: Store, pieces: list[bytes]) -> None:
    async with await store.wire() as wire:
        for piece in pieces:
            if not wire.writer.transport.is_closing():
                wire.send(piece)
            await _lives(store)  # lets the piece arrive alone
        try:
            came = await wire.closed()
        except ConnectionError:
            return
        for answer in came.split(b"HTTP/1.1 ")[1:]:
            assert answer[:1] in (b"1", b"2", b"4") or answer[:3] in (b"501", b"505"), came
