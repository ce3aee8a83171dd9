"""What requests are found in the bytes of a connection, however these are cut."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_reader import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    MalformedRequestError,
    RequestReader,
)
from tests.unit.kvstore.server.http.fake import request

CHUNKED = request("PUT", "/kv/a", "Transfer-Encoding: chunked")


class Found:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.heads: list[HttpRequest] = []
        self.bodies: list[bytes] = []
        self.complete = 0

    def head_received(self, request: HttpRequest) -> None:
        self.heads.append(request)
        self.bodies.append(b"")

    def body_received(self, data: bytes) -> None:
        self.bodies[-1] += data

    def request_received(self) -> None:
        self.complete += 1

    @property
    def whole(self) -> list[tuple[str, str, bytes]]:
        assert self.complete == len(self.heads)
        return [(head.method, head.target, body) for head, body in zip(self.heads, self.bodies, strict=True)]


def read(*pieces: bytes) -> Found:
    found = Found()
    reader = RequestReader(found, None)  # type: ignore[arg-type]  # handed on only
    for piece in pieces:
        reader.feed(piece)
    return found


UPGRADE = ("Connection: upgrade, HTTP2-Settings", "Upgrade: h2c")
MANY = (
    (request("GET", "/kv/a?consistency=stale"), ("GET", "/kv/a?consistency=stale", b"")),
    (request("PUT", "/kv/a", body=b"12345"), ("PUT", "/kv/a", b"12345")),
    (request("PUT", "/kv/a", "Content-Length: 0"), ("PUT", "/kv/a", b"")),
    (CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nHost: b\r\nX: y\r\n\r\n", ("PUT", "/kv/a", b"abcde")),
    (request("PUT", "/kv/a", *UPGRADE, body=b"GET /kv/b"), ("PUT", "/kv/a", b"GET /kv/b")),
    (request("GET", "/kv/a", *UPGRADE), ("GET", "/kv/a", b"")),
    (request("PUT", "/kv/a", *UPGRADE, "Content-Length: 0"), ("PUT", "/kv/a", b"")),
    (
        request("PUT", "/kv/a", *UPGRADE, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n",
        ("PUT", "/kv/a", b"abcde"),
    ),
    (
        b"PUT /kv/a HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx",
        ("PUT", "/kv/a", b"x"),
    ),
    (b"\r\n" + request("OPTIONS", "*"), ("OPTIONS", "*", b"")),
    (request("GET", "http://[::1]:80/kv/a"), ("GET", "http://[::1]:80/kv/a", b"")),
    (
        b"DELETE /kv/a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        ("DELETE", "/kv/a", b"x"),
    ),
)


@given(st.lists(st.sampled_from(MANY), max_size=6), st.integers(0, 2**32))
def test_requests_are_the_same_however_they_are_cut(
    chosen: list[tuple[bytes, tuple[str, str, bytes]]], seed: int
) -> None:
    data = b"".join(raw for raw, _ in chosen)
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(len(data) + 1), min(len(data), rng.randrange(8))))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert read(*pieces).whole == [meant for _, meant in chosen]


def test_headers_have_lower_names_and_repeated_ones_are_one_list() -> None:
    (head,) = read(request("GET", "/kv/a", "X-One: 1", "x-oNE:  2 ", 'If-Match: "1"')).heads
    assert head.headers == {b"host": b"store", b"x-one": b"1, 2", b"if-match": b'"1"'}
    assert head.header(b"x-one") == "1, 2"
    assert head.header(b"x-two") is None


def test_trailers_are_no_headers() -> None:
    found = read(CHUNKED + b"0\r\nIf-Match: 1\r\nHost: b\r\n\r\n" + request("GET", "/kv/a"))
    assert [list(head.headers) for head in found.heads] == [[b"host", b"transfer-encoding"], [b"host"]]


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (request("GET", "/kv/a"), True),
        (request("GET", "/kv/a", "Connection: close"), False),
        (request("GET", "/kv/a", "Connection: keep-alive"), True),
        (b"GET /kv/a HTTP/1.0\r\n\r\n", False),
        (b"GET /kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (request("CONNECT", "host:80"), False),
    ],
)
def test_what_follows_a_last_request_is_not_looked_at(data: bytes, kept: bool) -> None:
    found = read(data + request("GET", "/kv/b"))
    assert [head.keep_alive for head in found.heads] == ([True, True] if kept else [False])
    assert found.complete == len(found.heads)
    more = read(data, request("GET", "/kv/b"), b"garbage" if not kept else b"")
    assert len(more.heads) == len(found.heads)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (request("PUT", "/kv/a", "Connection: close, upgrade", "Upgrade: h2c", "Content-Length: 5"), b"hello"),
        (
            request("PUT", "/kv/a", "Connection: close, upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked"),
            b"5\r\nhello\r\n0\r\n\r\n",
        ),
        (b"PUT /kv/a HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n", b"hello"),
    ],
)
def test_the_last_request_of_a_connection_keeps_its_body_if_it_asks_for_an_upgrade(head: bytes, body: bytes) -> None:
    for pieces in ([head + body], [head, body], [bytes([byte]) for byte in head + body]):
        found = read(*pieces, request("GET", "/kv/b"))
        assert found.whole == [("PUT", "/kv/a", b"hello")]
        assert not found.heads[0].keep_alive


@pytest.mark.parametrize(
    ("pieces", "cause"),
    [
        ([request("GET", "/kv/a", *(f"X{number}: y" for number in range(MAX_FIELDS)))], "header lines"),
        ([request("GET", "/kv/a", *["X: y"] * MAX_FIELDS)], "header lines"),
        ([CHUNKED + b"0\r\n" + b"X: y\r\n" * (MAX_FIELDS + 2)], "header lines"),
        ([request("GET", "/kv/a", "X: " + MAX_LINE_BYTES * "y")], "line is longer"),
        ([b"GET /", *[b"a" * 1000] * 9], "target is longer"),
        ([b"GET /kv/a HTTP/1.1\r\nX: ", *[b"a" * 1024] * 65], f"longer than {MAX_HEAD_BYTES}"),
        ([CHUNKED + b"0\r\nX: ", *[b"a" * 1024] * 65], f"longer than {MAX_HEAD_BYTES}"),
        ([CHUNKED + b"3;", *[b"a" * 1024] * 65], f"longer than {MAX_HEAD_BYTES}"),
        ([b"\r\n" * 512] * 65, f"longer than {MAX_HEAD_BYTES}"),
        ([b"PUT /kv/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], "HTTP/1.0"),
        ([request("GET", "http://h:x/")], "target"),
        ([request("GET", "http://h@[::1/")], "target"),
        ([request("GET", "h:80")], "url"),
    ],
)
def test_what_is_too_long_or_means_two_things_is_refused(pieces: list[bytes], cause: str) -> None:
    with pytest.raises(MalformedRequestError, match=cause):
        read(*pieces)


def test_as_much_as_is_allowed() -> None:
    fields = [f"X{number}: y" for number in range(MAX_FIELDS - 1)]
    assert read(request("GET", "/kv/a", *fields)).complete == 1
    assert read(request("GET", "/" + (MAX_LINE_BYTES - 1) * "a", "X: " + (MAX_LINE_BYTES - 1) * "y")).complete == 1


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_are_requests_or_refused(first: bytes, second: bytes) -> None:
    try:
        found = read(first, second)
    except MalformedRequestError:
        return
    assert found.complete <= len(found.heads)
