"""Which Host and which Origin are taken, on every path and every method."""

import asyncio
import itertools
import re

import pytest

from kvstore.api.authority import Authority
from kvstore.server.http.cross_site import HostNames
from tests.unit.kvstore.server.http.described import DOCUMENT
from tests.unit.kvstore.server.http.fake import Reply, Store, Wire, run

PATHS = [
    ("GET", "/kv/a"),
    ("HEAD", "/kv/a"),
    ("PUT", "/kv/a"),
    ("DELETE", "/kv/a"),
    ("GET", "/kv/?prefix="),
    ("DELETE", "/kv/?prefix="),
    ("POST", "/txn"),
    ("GET", "/watch?prefix="),
    ("GET", "/events"),
    ("GET", "/backup"),
    ("POST", "/leases"),
    ("POST", "/locks/l"),
    ("DELETE", "/members/n3"),
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("GET", "/ui"),
    ("GET", "/ui/app.js"),
    ("GET", "/docs"),
    ("GET", "/nothing"),
    ("OPTIONS", "/kv/a"),
    ("PATCH", "/kv/a"),
]
UNSAFE = ("PUT", "POST", "DELETE", "PATCH")
NAMES = HostNames(members=["N1"], public=[Authority("kv.example.com", None), Authority("kv.internal", 8443)])


async def ask(wire: Wire, method: str, target: str, *fields: str, host: str | None = "127.0.0.1:8001") -> Reply:
    lines = [f"{method} {target} HTTP/1.1", *fields, "Content-Length: 0"]
    if host is not None:
        lines.insert(1, f"Host: {host}")
    return await wire.ask("\r\n".join(lines).encode() + b"\r\n\r\n")


def test_every_path_is_refused_under_a_name_that_is_not_configured(subtests: pytest.Subtests) -> None:
    """A page can give its own name the address of a replica, so reads must be refused, too."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as kept:
            for method, target in PATHS:
                with subtests.test(method=method, target=target):
                    reply = await ask(kept, method, target, host="rebound.example")
                    assert reply.status == 421
                    if method != "HEAD":
                        problem = reply.problem()
                        assert problem["type"] == "urn:kvstore:problem:unknown-host"
                        assert "rebound.example" in problem["detail"]
                        assert "public_names" in problem["detail"]
                        assert problem.get("outcome", "failed") == "failed"
            assert (await ask(kept, "GET", "/livez")).status == 200
        assert store.replica.arrived.empty()

    run(scenario, names=NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3:8001",
        "[::1]:8001",
        "[fe80::1%25eth0]",
        "localhost:8001",
        "LOCALHOST",
        "n1.localhost",
        "localhost.:8001",
        "n1:8001",
        "N1",
        "kv.example.com",
        "KV.example.com.:9",
        "kv.internal",
        "",
    ],
)
def test_addresses_localhost_and_configured_names_are_taken(host: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await ask(wire, "PUT", "/kv/a", host=host)).status == 201

    run(scenario, names=NAMES)


@pytest.mark.parametrize("host", ["n10", "kv.example.com.evil.example", "127.0.0.1.evil.example", "n1.evil"])
def test_names_that_only_look_like_configured_ones_are_refused(host: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await ask(wire, "GET", "/kv/a", host=host)).status == 421

    run(scenario, names=NAMES)


@pytest.mark.parametrize(
    "host",
    ["a b", "a/b", "[::1", "[::g]", "a:b", "a:99999", "a@b", "http://a", "[1.2.3.4]", "\xe9", ":80", "127.1", "a:0"],
)
def test_an_invalid_host_header_is_malformed(host: str) -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            reply = await ask(wire, "GET", "/kv/a", host=host)
            assert (reply.status, reply.problem()["type"]) == (400, "urn:kvstore:problem:malformed-request")

    run(scenario, names=NAMES)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://n1:8001/kv/a", "rebound.example", 404),
        ("http://rebound.example/kv/a", "n1", 421),
        ("http://rebound.example@n1/kv/a", "rebound.example", 400),
        ("http://n1@rebound.example/kv/a", "n1", 400),
    ],
)
def test_the_host_of_an_absolute_target_counts_instead_of_the_header(target: str, host: str, status: int) -> None:
    """RFC 9112, 3.2.2."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await ask(wire, "GET", target, host=host)).status == status

    run(scenario, names=NAMES)


def test_http_1_0_without_a_host_is_taken() -> None:
    """No browser sends it; health checks of load balancers do."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            assert (await wire.ask(b"GET /livez HTTP/1.0\r\n\r\n")).status == 200

    run(scenario, names=NAMES)


@pytest.mark.parametrize(
    ("host", "fields", "taken"),
    [
        ("127.0.0.1:8001", [], True),
        ("127.0.0.1:8001", ["Sec-Fetch-Site: same-origin"], True),
        ("127.0.0.1:8001", ["Sec-Fetch-Site: none"], True),
        ("127.0.0.1:8001", ["Sec-Fetch-Site: same-site"], False),
        ("127.0.0.1:8001", ["Sec-Fetch-Site: cross-site"], False),
        ("127.0.0.1:8001", ["Sec-Fetch-Site: cross-site", "Origin: http://127.0.0.1:8001"], False),
        ("127.0.0.1:8001", ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"], False),
        # a proxy that rewrites Host
        ("127.0.0.1:8001", ["Sec-Fetch-Site: same-origin", "Origin: https://kv.other.example"], True),
        ("127.0.0.1:8001", ["Origin: https://kv.example.com"], True),
        ("127.0.0.1:8001", ["Origin: http://kv.example.com:80"], True),
        ("127.0.0.1:8001", ["Origin: https://KV.example.com:443"], True),
        ("127.0.0.1:8001", ["Origin: https://kv.example.com:3000"], False),
        ("127.0.0.1:8001", ["Origin: https://kv.internal:8443"], True),
        ("127.0.0.1:8001", ["Origin: https://kv.internal"], False),
        ("127.0.0.1:8001", ["Origin: https://elsewhere.example"], False),
        # without Sec-Fetch-Site, which browsers omit on plain HTTP
        ("127.0.0.1:8001", ["Origin: http://127.0.0.1:8001"], True),
        ("127.0.0.1:8001", ["Origin: http://127.0.0.1:8002"], False),
        ("127.0.0.1:8001", ["Origin: http://127.0.0.1"], False),
        ("127.0.0.1:8001", ["Origin: null"], False),
        ("127.0.0.1:8001", ["Origin: "], False),
        ("127.0.0.1:8001", ["Origin: file://127.0.0.1:8001"], False),
        ("127.0.0.1:8001", ["Origin: http://127.0.0.1:8001, http://evil"], False),
        ("127.0.0.1", ["Origin: http://127.0.0.1:80"], True),
        ("127.0.0.1:80", ["Origin: http://127.0.0.1"], True),
        ("127.0.0.1:443", ["Origin: https://127.0.0.1"], True),
        ("127.0.0.1", ["Origin: https://127.0.0.1"], True),
        ("[::1]:8001", ["Origin: http://[::1]:8001"], True),
        ("[0:0:0:0:0:0:0:1]:8001", ["Origin: http://[::1]:8001"], True),
        ("n1:8001", ["Origin: http://n1:8001"], True),
        ("127.0.0.1:8001", ["Origin: http://n1"], False),
    ],
)
def test_the_origin_of_writes(host: str, fields: list[str], taken: bool, subtests: pytest.Subtests) -> None:
    """The same on every path, on a new connection and on a kept one; reads are not concerned."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as kept, await store.wire() as other:
            assert (await ask(other, "GET", "/livez")).status == 200
            for (method, target), wire in itertools.product(PATHS, (kept, other)):
                if method in UNSAFE:
                    with subtests.test(method=method, target=target):
                        reply = await ask(wire, method, target, *fields, host=host)
                        assert (reply.status == 403) is not taken
            assert (await ask(kept, "GET", "/kv/none", *fields, host=host)).status == 404
        assert taken or store.replica.machine.revision == 0

    run(scenario, names=NAMES)


@pytest.mark.parametrize(
    ("field", "helps"), [("Sec-Fetch-Site: cross-site", False), ("Origin: https://elsewhere.example", True)]
)
def test_a_refused_page_is_given_only_advice_that_helps(field: str, helps: bool) -> None:
    """Sec-Fetch-Site of another site decides, whatever public_names has."""

    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            detail = (await ask(wire, "PUT", "/kv/a", field)).problem()["detail"]
            assert field.partition(": ")[2] in detail
            assert ("public_names" in detail) is helps
            assert ("No setting" in detail) is not helps

    run(scenario, names=NAMES)


WRITE_PATHS = sorted(
    {re.sub(r"\{\w+\}", "x", path) for path in DOCUMENT["paths"]} | {"/nothing", "http://127.0.0.1:8001/kv/x"}
)
QUERIES = ["", "?ttl_s=5", "?prefix=&limit=5&lock=l&fence=1"]
HEADS = [
    ["Content-Length: 0"],
    ["Content-Length: 0", "Idempotency-Key: 7-1", "If-None-Match: *"],
    ["Content-Length: 0", 'If-Match: "1"'],
    ["Content-Length: 2", "Content-Type: application/json"],
    ["Content-Length: 2", "Expect: 100-continue"],
    ["Transfer-Encoding: chunked"],
]
BODIES = {"Content-Length: 2": b"{}", "Transfer-Encoding: chunked": b"2\r\n{}\r\n0\r\n\r\n"}


def foreign(method: str, target: str, head: list[str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1:8001", "Origin: https://elsewhere.example", *head]
    body = b"" if "Expect: 100-continue" in head else BODIES.get(head[0], b"")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def own(method: str, target: str) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("head", HEADS, ids=" ".join)
@pytest.mark.parametrize("method", UNSAFE)
def test_a_write_for_another_site_is_refused_on_every_path_in_whatever_way_it_arrives(
    method: str, head: list[str], subtests: pytest.Subtests
) -> None:
    """On a new connection, on a kept one, byte by byte, and behind a write that is in progress. A refused write is not
    asked for its body."""

    async def scenario(store: Store) -> None:
        for target, query in itertools.product(WRITE_PATHS, QUERIES):
            request = foreign(method, target + query, head)
            with subtests.test(target=target, query=query):
                async with await store.wire() as new, await store.wire() as kept, await store.wire() as slow:
                    assert (await new.ask(request)).status == 403
                    assert (await kept.ask(own("PUT", "/kv/own"))).status in {200, 201}
                    assert (await kept.ask(request)).status == 403
                    for byte in request:
                        slow.send(bytes([byte]))
                        await asyncio.sleep(0)
                    assert (await slow.reply()).status == 403
                async with await store.wire() as pipelined:
                    while not store.replica.arrived.empty():
                        store.replica.arrived.get_nowait()
                    store.replica.gate.clear()
                    pipelined.send(own("PUT", "/kv/own") + request + own("PUT", "/kv/late"))
                    assert await store.replica.arrived.get() == b"own"
                    store.replica.gate.set()
                    assert [(await pipelined.reply()).status for _ in range(2)] == [200, 403]
        assert store.replica.machine.records.keys() <= {b"own", b"late"}
        assert not store.replica.lease_index.leases
        assert store.replica.membership.version == 3

    run(scenario, names=NAMES)
