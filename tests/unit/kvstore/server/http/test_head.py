"""What of the bytes of a connection may go the short way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.queries import Consistency
from kvstore.server.http.head import MAX_FIELDS, MAX_HEAD_BYTES, NotPlainError, Plain, scan
from tests.unit.kvstore.server.http.fake import request

LINEARIZABLE = Consistency.LINEARIZABLE
PUT = request("PUT", "/kv/a", body=b"12345")
MOST = 1000


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (request("GET", "/kv/a"), Plain(b"a", LINEARIZABLE, None)),
        (request("GET", "/kv/a%20/../%2f//"), Plain(b"a /..////", LINEARIZABLE, None)),
        (request("GET", "/kv/a?consistency=stale"), Plain(b"a", Consistency.STALE, None)),
        (request("GET", "/kv/a", "Connection: keep-alive", "X: y"), Plain(b"a", LINEARIZABLE, None)),
        (request("GET", "/kv/a", "Content-Length: 0"), Plain(b"a", LINEARIZABLE, None)),
        (PUT, Plain(b"a", LINEARIZABLE, b"12345")),
        (request("PUT", "/kv/a", "Content-Length: 0"), Plain(b"a", LINEARIZABLE, b"")),
        (request("PUT", "/kv/a"), Plain(b"a", LINEARIZABLE, b"")),
        (request("PUT", "/kv/a", "content-type: text/plain", body=bytes(MOST)), Plain(b"a", LINEARIZABLE, bytes(MOST))),
    ],
)
def test_a_plain_request_and_where_it_ends(data: bytes, plain: Plain) -> None:
    for before in (b"", PUT):
        for behind in (b"", b"GET"):
            assert scan(before + data + behind, len(before), MOST) == (plain, len(before) + len(data))


@pytest.mark.parametrize(
    "data",
    [
        request("HEAD", "/kv/a"),
        request("DELETE", "/kv/a"),
        request("GET", "/status"),
        request("POST", "/members", body=b"{}"),
        request("GET", "/kv/"),
        request("GET", "/kv/%zz"),
        request("GET", "/kv/" + 1025 * "a"),
        request("GET", "/kv/a?consistency=no"),
        request("GET", "/kv/a", body=b"a body"),
        request("PUT", "/kv/a?x=y", body=b"v"),
        request("GET", "http://host/kv/a"),
        request("GET", "/kv/a", "X: 1", "X: 2"),
        request("GET", "/kv/a", *(f"X{number}: y" for number in range(MAX_FIELDS))),
        b"GET /kv/a\r\n\r\n",
        b"GET /kv/a HTTP/1.0\r\nHost: store\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_whole_and_not_plain_is_told_apart(data: bytes) -> None:
    assert scan(PUT + data + PUT, len(PUT), MOST) == (None, len(PUT) + len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /kv/a HTTP/1.1\nHost: a\n\n\r\n\r\n",
        request("GET", "/kv/a", "Connection: close"),
        request("GET", "/kv/a", "Connection: upgrade", "Upgrade: h2c"),
        request("CONNECT", "host:80"),
        request("PUT", "/kv/a", "Expect: 100-continue", body=b"v"),
        request("PUT", "/kv/a", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        request("PUT", "/kv/a", "Transfer-Encoding: chunked", body=b"v"),
        request("PUT", "/kv/a", "Content-Length: 1", body=b"v"),
        request("PUT", "/kv/a", "Content-Length: 9" * 30),
        request("PUT", "/kv/a", "If-Match: 3", body=b"v"),
        request("PUT", "/kv/a", body=bytes(MOST + 1))[:-1],
        request("DELETE", "/kv/a", body=b"1234")[:-1],
        request("GET", "/kv/a", "X: " + MAX_HEAD_BYTES * "a"),
        b"GET /kv/" + MAX_HEAD_BYTES * b"a",
    ],
)
def test_where_only_aiohttp_can_know_the_end_it_gets_the_rest(data: bytes) -> None:
    with pytest.raises(NotPlainError):
        scan(PUT + data, len(PUT), MOST)


@given(st.integers(0, len(PUT) - 1))
def test_a_part_of_a_plain_request_is_waited_for(received: int) -> None:
    assert scan(PUT + PUT[:received], len(PUT), MOST) is None
