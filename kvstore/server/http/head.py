"""Finds one whole request in what a connection has received, and whether it may go the short way.

httptools (llhttp, the parser of Node.js) says what HTTP is; here is only decided what is plain: a GET or a PUT of a key
in the origin form, with no header that asks for anything. Whatever else there is, malformed bytes included, goes to
aiohttp as it came: one place refuses, and explains.
"""

from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from kvstore.api.queries import Consistency
from kvstore.server.http.problems import Problem
from kvstore.server.http.target import consistency_of, decode_key

KEYS = "/kv/"

MAX_HEAD_BYTES = 8190
"""aiohttp takes no line that is longer. A longer head may have one, so it is for aiohttp to judge."""
MAX_FIELDS = 100
"""aiohttp takes a few more."""

_END = b"\r\n\r\n"
_SPECIAL = frozenset(
    {
        b"connection",
        b"content-range",
        b"expect",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"if-unmodified-since",
        b"transfer-encoding",
        b"upgrade",
    }
)


class NotPlainError(Exception):
    """Where the next request ends only aiohttp can find out, and all that follows is for it."""


class Plain(NamedTuple):
    """A request that may go the short way. `value` is the body of a PUT, None for a GET."""

    key: bytes
    consistency: Consistency
    value: bytes | None


class _Head:
    """What the parser tells of a head."""

    def __init__(self) -> None:
        self.target = b""
        self.names: list[bytes] = []
        self.body_bytes = 0

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self.body_bytes = int(value)
        elif name == b"connection" and value.lower() == b"keep-alive":
            return  # it is kept alive anyway
        self.names.append(name)


def scan(data: bytes, start: int, max_value_bytes: int) -> tuple[Plain | None, int] | None:
    """The request that begins at `start` and where it ends, with None for one that is whole but not plain; None alone
    while more has to come. Raises NotPlainError."""
    head_end = data.find(_END, start) + len(_END)
    if head_end < len(_END):
        if len(data) - start > MAX_HEAD_BYTES:
            raise NotPlainError
        return None
    if head_end - start > MAX_HEAD_BYTES:
        raise NotPlainError
    head = _Head()
    parser = HttpRequestParser(head)
    try:
        parser.feed_data(data[start:head_end])
    except (HttpParserError, HttpParserUpgrade, ValueError) as error:
        raise NotPlainError from error
    names = set(head.names)
    if not names.isdisjoint(_SPECIAL):
        raise NotPlainError
    method, end = parser.get_method(), head_end + head.body_bytes
    plain = (
        head.body_bytes <= {b"PUT": max_value_bytes, b"GET": 0}.get(method, -1)
        and parser.get_http_version() == "1.1"
        and b"host" in names
        and len(names) == len(head.names) <= MAX_FIELDS  # which fields may be repeated is for aiohttp to know
    )
    if end > len(data):
        if plain:
            return None
        raise NotPlainError
    return (_plain(method, head.target, data[head_end:end]) if plain else None), end


def _plain(method: bytes, target: bytes, body: bytes) -> Plain | None:
    path, question, query = target.decode("ascii", "replace").partition("?")
    if not path.startswith(KEYS) or "#" in query or "#" in path:
        return None
    try:
        key = decode_key(path[len(KEYS) :])
        consistency = consistency_of(query)
    except Problem:
        return None
    if method == b"GET":
        return Plain(key, consistency, None)
    return None if question else Plain(key, consistency, body)
