"""Malformed requests, drawn from a random generator: equal generators draw equal bytes.

Each family corrupts one part of a call that /openapi.json describes. Requests are also mutated, truncated, sent in
pieces, and pipelined behind others.
"""

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

SENTINEL = (b"/kv/fuzz/sentinel", b"still here")
"""Path and value of a key that no malformed request writes; good requests read it."""
HARMFUL = re.compile(rb"DELETE [^ ]*/kv/\?")
"""A request that would delete a range of keys if a change made it well-formed."""

NUMBERS = (b"0", b"-1", b"1e309", b"9" * 30, b"0" * 18 + b"1" + b"9" * 30, b"NaN", b"18446744073709551616", b"1.5")
TEXTS = (
    *(b"", b"%", b"%zz", b"%00", b"%ff%fe", b"%C3%28", b"..%2f..%2f", b"%0d%0aX:%20y", b"a" * 2000, b"%61" * 1100),
    *(b"[]", b"{}", b"null", b"true", b"'", b'"', b";", b"\\", b"&", b"=", b"a=b", b"\xe2\x80\xae", b"\xff"),
)
JSONS = (
    *(b"null", b"true", b"-1", b"0", b"1e309", b"1e-400", b"9" * 30, b"-" + b"9" * 400, b"NaN", b"Infinity", b"''"),
    *(
        b"[]",
        b"{}",
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xff"',
        b'"' + b"x" * 3000 + b'"',
        b"[" * 500,
        b'{"a":' * 500,
    ),
    *(b"[" * 20_000, b'{"then":[{"txn":' * 200, b"01", b"1,", b'"a" "b"', b"9223372036854775808"),
)
METHODS = (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"BREW")
ODD_METHODS = (b"", b"get", b"G\x00T", b"GET\t", b"P" * 9000, b"\xff", b"GET GET", b"(", b"M-SEARCH")
ODD_VERSIONS = (
    b"",
    b"HTTP/0.9",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"HTTP/9999999999.1",
    b"http/1.1",
    b"HTTP/1.1 x",
)
ODD_FIELDS = (
    *(
        b"no colon",
        b": no name",
        b"Sp ace: x",
        b"X : x",
        b"X: a\x00b",
        b"X: a\rb",
        b"\x01: x",
        b" folded",
        b"X: a\r\n b",
    ),
    *(b"Host: again", b"X: " + b"a" * 9000, b"Content-Length: -1", b"Content-Length: +3", b"Content-Length: 3, 4"),
    *(
        b"Content-Length: " + b"9" * 40,
        b"Content-Length: 0x3",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked,",
    ),
    *(
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: identity",
        b"Connection: upgrade\r\nUpgrade: h2c",
        b"Upgrade: x",
    ),
    *(b"Expect: 100-continue", b"Expect: a miracle", b"Content-Encoding: gzip", b"Connection: close, x", b"Trailer: x"),
)
KNOWN_FIELDS = (
    *(
        b"If-Match",
        b"If-None-Match",
        b"Idempotency-Key",
        b"Last-Event-ID",
        b"Accept",
        b"Content-Type",
        b"Range",
        b"Expect",
    ),
    *(b"If-Unmodified-Since", b"Content-Range", b"Authorization", b"Cookie"),
)
CHUNKED = (
    *(
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"-1\r\n",
        b"3\r\nab",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"f" * 20 + b"\r\n",
        b"3;x=y\r\nabc\r\n0\r\n\r\n",
    ),
    *(
        b"3\nabc\n0\n\n",
        b"\r\n\r\n",
        b"0\r\nX: y\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
    ),
    *(
        b"1" * 9000,
        b"3;" + b"e" * 9000 + b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"T: x\r\n" * 500 + b"\r\n",
        b" 3\r\nabc\r\n",
    ),
)


class Attempt(msgspec.Struct, frozen=True):
    """The bytes that one connection sends, in `pieces` with a pause between them."""

    family: str
    pieces: list[bytes]
    whole: bool = False
    """Whether the framing is correct, so that an answer must come; otherwise the replica may wait for more."""
    good: int = 0
    """Number of good requests before the malformed one, whose answers must be the value of the sentinel."""
    pause_s: float = 0.0
    cut: bool = False
    """Whether the client resets the connection after the last piece."""
    bodiless: bool = False
    """Whether the request is a HEAD."""


class DescribedCall(msgspec.Struct, frozen=True):
    """A call of the HTTP interface."""

    method: bytes
    path: str
    parameters: list[bytes]
    body: bytes | None


def calls_of(document: dict[str, Any]) -> list[DescribedCall]:
    """Return the calls of /openapi.json without the one that deletes ranges."""
    calls = [
        DescribedCall(method.upper().encode(), path, _queries(operation), _body(operation))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return [call for call in calls if (call.method, call.path) != (b"DELETE", "/kv/")]


def _queries(operation: dict[str, Any]) -> list[bytes]:
    return [each["name"].encode() for each in operation["parameters"] if each["in"] == "query"]


def _body(operation: dict[str, Any]) -> bytes | None:
    """Return the example of the body, with unreachable addresses."""
    if "requestBody" not in operation:
        return None
    (content,) = operation["requestBody"]["content"].values()
    example = content.get("example", "")
    packed = example.encode() if isinstance(example, str) else json.dumps(example).encode()
    return re.sub(rb'"[^"]*:\d+"', b'"nowhere"', packed)


def request(method: bytes, target: bytes, fields: list[bytes], body: bytes | None = None) -> bytes:
    """Return a request; with a body it has a Content-Length."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: localhost", *fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


GOOD = request(b"GET", SENTINEL[0], [])


class RequestForge:
    """A generator of attempts, made from well-formed calls."""

    def __init__(self, calls: list[DescribedCall]) -> None:
        self._calls = calls
        self._with_body = [call for call in calls if call.body is not None]
        self._families: list[tuple[str, Callable[[Random], Attempt]]] = [
            ("request line", self._line),
            ("header", self._header),
            ("header value", self._header_value),
            ("path", self._path),
            ("query", self._query),
            ("json", self._json),
            ("chunks", self._chunks),
            ("length", self._length),
            ("mutated", self._mutated),
            ("noise", self._noise),
        ]

    def draw(self, rng: Random) -> Attempt:
        """Return an attempt of any family, possibly pipelined, in pieces or truncated."""
        attempt = self._of_family(rng)
        match rng.randrange(12):
            case 0:
                return self._pipelined(rng, attempt)
            case 1:
                return _in_pieces(rng, attempt)
            case 2:
                return _cut(rng, attempt)
            case _:
                return attempt

    def _of_family(self, rng: Random) -> Attempt:
        while True:
            name, family = rng.choice(self._families)
            attempt = family(rng)
            data = attempt.pieces[0]
            if HARMFUL.search(data) is None:
                return msgspec.structs.replace(attempt, family=name, bodiless=data.startswith(b"HEAD "))

    def _request(self, rng: Random, fields: list[bytes] | None = None) -> bytes:
        call = rng.choice(self._calls)
        return request(call.method, fill(call.path, rng), fields or [], call.body)

    def _line(self, rng: Random) -> Attempt:
        method = rng.choice((*METHODS, *ODD_METHODS))
        target = rng.choice(
            (fill(rng.choice(self._calls).path, rng), b"*", b"", b"http://[::1/kv/a", b"//", b"/\xff", b"/ ")
        )
        version = rng.choice((*ODD_VERSIONS, b"HTTP/1.1"))
        space = rng.choice((b" ", b" ", b" ", b"\t", b"  "))
        end = rng.choice((b"\r\n\r\n", b"\r\n\r\n", b"\n\n", b"\r\r"))
        return Attempt("", [space.join((method, target, version)) + b"\r\nHost: localhost" + end])

    def _header(self, rng: Random) -> Attempt:
        fields = rng.choices(ODD_FIELDS, k=rng.choice((1, 1, 2, 3)))
        return Attempt("", [self._request(rng, fields * rng.choice((1, 1, 1, 1, 60)))])

    def _header_value(self, rng: Random) -> Attempt:
        call = rng.choice(self._calls)
        name = rng.choice(KNOWN_FIELDS)
        value = rng.choice(
            (*NUMBERS, *TEXTS, b'"1"', b'"' + b"9" * 19 + b'"', b"1.1", b"1." + b"9" * 18, b'W/"1", "2"', b"*")
        )
        return self._whole(call, rng, fields=[name + b": " + value], sure=name != b"Expect")

    def _path(self, rng: Random) -> Attempt:
        call = rng.choice(self._calls)
        target = re.sub(rb"[^/]*$", lambda _: rng.choice((*TEXTS, *NUMBERS)), fill(call.path, rng))
        tail = rng.choice((b"", b"", b"/", b"/x", b"//", b"/keepalive", b"#a", b"?"))
        return Attempt("", [request(call.method, target + tail, [], call.body)])

    def _query(self, rng: Random) -> Attempt:
        call = rng.choice(self._calls)
        names = (*call.parameters, b"no-such", b"", b"consistency", b"%zz")
        pairs = [
            rng.choice(names) + b"=" + rng.choice((*NUMBERS, *TEXTS[:-2])) for _ in range(rng.choice((1, 1, 2, 3, 40)))
        ]
        return self._whole(call, rng, query=b"?" + rng.choice((b"&", b"&", b";", b"&&")).join(pairs))

    def _json(self, rng: Random) -> Attempt:
        call = rng.choice(self._with_body)
        return self._whole(call, rng, body=corrupted(call.body or b"{}", rng))

    def _whole(
        self,
        call: DescribedCall,
        rng: Random,
        *,
        query: bytes = b"",
        fields: list[bytes] | None = None,
        body: bytes | None = None,
        sure: bool = True,
    ) -> Attempt:
        """Return an attempt, which must be answered if `sure`: its framing is correct."""
        target = fill(call.path, rng) + query
        data = request(call.method, target, fields or [], call.body if body is None else body)
        return Attempt("", [data], whole=sure)

    def _chunks(self, rng: Random) -> Attempt:
        call = rng.choice(self._with_body)
        fields = [b"Transfer-Encoding: chunked", *rng.choices(ODD_FIELDS, k=rng.choice((0, 0, 1)))]
        return Attempt("", [request(call.method, fill(call.path, rng), fields) + rng.choice(CHUNKED)])

    def _length(self, rng: Random) -> Attempt:
        call = rng.choice(self._calls)
        length = rng.choice(
            (b"0", b"1", b"5", b"1000", b"1048576", b"1048577", b"99999999999", b"", b"5\r\nContent-Length: 6")
        )
        head = request(call.method, fill(call.path, rng), [b"Content-Length: " + length])
        return Attempt("", [head + rng.choice((b"", b"abc", call.body or b"", bytes(2000)))])

    def _mutated(self, rng: Random) -> Attempt:
        return Attempt("", [mutated(self._request(rng), rng)])

    def _noise(self, rng: Random) -> Attempt:
        noise = rng.randbytes(rng.choice((1, 10, 100, 1000, 10_000)))
        return Attempt(
            "", [rng.choice((b"", b"GET ", b"PUT /kv/fuzz/1 HTTP/1.1\r\n", b"\x16\x03\x01")) + noise + b"\r\n\r\n"]
        )

    def _pipelined(self, rng: Random, attempt: Attempt) -> Attempt:
        """Send an attempt behind good requests, all in one piece."""
        count = rng.choice((1, 2, 40))
        data = GOOD * count + attempt.pieces[0]
        return msgspec.structs.replace(attempt, family=f"pipelined {attempt.family}", pieces=[data], good=count)


def _in_pieces(rng: Random, attempt: Attempt) -> Attempt:
    data = attempt.pieces[0]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((1, 1, 3, 10))))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return msgspec.structs.replace(
        attempt, family=f"slow {attempt.family}", pieces=pieces, pause_s=rng.choice((0.0, 0.001, 0.03))
    )


def _cut(rng: Random, attempt: Attempt) -> Attempt:
    data = attempt.pieces[0]
    return Attempt(f"cut {attempt.family}", [data[: rng.randrange(len(data) + 1)]], cut=True)


def fill(path: str, rng: Random) -> bytes:
    """Return a path whose parameters name no member and no key that is checked."""
    number = rng.randrange(100)
    return path.replace("{key}", f"fuzz/{number}").replace("{id}", str(number)).replace("{name}", "nobody").encode()


def corrupted(body: bytes, rng: Random) -> bytes:
    """Return a JSON document with another value in one place, or a broken one."""
    match rng.randrange(5):
        case 0:
            return rng.choice(JSONS)
        case 1:
            return mutated(body, rng)
        case _:
            values = [match.span() for match in re.finditer(rb'"[^"]*"(?=[,}\]])|\b(true|false|[\d.]+)\b', body)]
            start, end = rng.choice(values) if values else (0, len(body))
            return body[:start] + rng.choice((*JSONS, *NUMBERS)) + body[end:]


def mutated(data: bytes, rng: Random) -> bytes:
    """Return `data` with some bytes changed, dropped, doubled or inserted."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 1, 2, 8, 40)))
        inserted = rng.choice((b"", rng.randbytes(end - start), data[start:end] * 2, rng.choice((*TEXTS, *NUMBERS))))
        data = data[:start] + inserted + data[end:]
    return data
