"""Malformed requests, and the answers that are violations."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from typer.testing import CliRunner

from kvstore.server.http.openapi.pages import openapi_page
from kvstore.server.http.problems import INTERNAL, INVALID_KEY, NO_LEADER, NO_SUCH_RESOURCE, Problem, ProblemKind
from tests.torture.__main__ import app
from tests.torture.fuzz import exchange as exchanging
from tests.torture.fuzz.exchange import FuzzExchange, NotHttpError, exchange, parse, violation
from tests.torture.fuzz.malformed import GOOD, HARMFUL, SENTINEL, Attempt, RequestForge, calls_of
from tests.torture.fuzz.run import GENERAL_TYPES, FuzzResult, MemorySample, problem_types
from tests.unit.bench.serving import response

DOCUMENT = json.loads(openapi_page().body)
TYPES = {*problem_types(DOCUMENT), *GENERAL_TYPES}
WHOLE = Attempt("query", [b""], whole=True)
VALUE = response(200, SENTINEL[1])


def refused(kind: ProblemKind) -> bytes:
    return Problem(kind, "detail").response("GET").render(b"")


def judged(attempt: Attempt, received: bytes, *, closed: bool = False) -> str | None:
    return violation(attempt, FuzzExchange(parse(received, attempt), closed), TYPES)


def drawn(seed: int, count: int = 3000) -> list[Attempt]:
    forge = RequestForge(calls_of(DOCUMENT))
    return [forge.draw(Random(f"{seed}/{number}")) for number in range(count)]


def test_the_same_seed_draws_the_same_and_every_family() -> None:
    attempts = drawn(1)
    assert attempts == drawn(1)
    assert attempts[:100] != drawn(2, 100)
    families = {attempt.family for attempt in attempts}
    plain = {name for name in families if " " not in name or name.startswith(("request", "header"))}
    assert len(plain) == 10
    assert {f"{way} {name}" for way in ("slow", "cut", "pipelined") for name in plain} <= families


def test_nothing_that_is_drawn_deletes_many_keys_or_makes_a_member() -> None:
    """It may come out well-formed, and what is looked at meanwhile has to stay."""
    for attempt in drawn(3):
        sent = b"".join(attempt.pieces)
        assert not HARMFUL.search(sent)
        assert b"127.0.0.1:" not in sent


def test_every_call_with_a_body_is_tried() -> None:
    described = {
        path
        for path, operations in DOCUMENT["paths"].items()
        for operation in operations.values()
        if "requestBody" in operation
    }
    assert {call.path for call in calls_of(DOCUMENT) if call.body is not None} == described


@pytest.mark.parametrize(
    "received",
    [
        refused(INVALID_KEY),
        refused(NO_LEADER),
        refused(NO_SUCH_RESOURCE),
        VALUE,
        b"HTTP/1.1 100 Continue\r\n\r\n" + refused(INVALID_KEY),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_a_correct_answer_is_accepted(received: bytes) -> None:
    assert judged(WHOLE, received) is None


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (b"", "no answer"),
        (refused(INTERNAL), "answered with status 500"),
        (response(502, b"bad gateway"), "answered with status 502"),
        (response(400, b"no"), "is not application/problem+json"),
        (response(404, b"{}", "Content-Type: application/problem+json"), "is not a problem"),
        (refused(ProblemKind(400, "another", "Another")), "is not in /openapi.json"),
        (refused(INVALID_KEY).replace(b'"status":400', b'"status":404'), "is not in /openapi.json"),
    ],
)
def test_a_wrong_answer_is_a_violation(received: bytes, why: str) -> None:
    found = judged(WHOLE, received)
    assert found is not None
    assert why in found


def test_good_requests_before_garbage_must_be_answered_rightly() -> None:
    pipelined = Attempt("pipelined noise", [GOOD * 2], good=2)
    assert judged(pipelined, VALUE * 2 + refused(INVALID_KEY), closed=True) is None
    assert judged(pipelined, VALUE, closed=True) == "only 1 of 2 good requests were answered"
    wrong = judged(pipelined, VALUE + response(200, b"another value"))
    assert wrong is not None
    assert wrong.startswith("good request 2")


def test_a_head_is_answered_without_a_body() -> None:
    bare = refused(INVALID_KEY).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    (answer,) = parse(bare, msgspec.structs.replace(WHOLE, bodiless=True))
    assert (answer.status, answer.body, answer.whole) == (400, b"", True)


def test_bytes_that_are_not_http_are_an_error() -> None:
    with pytest.raises(NotHttpError):
        parse(b"garbage\r\n\r\n", WHOLE)
    with pytest.raises(NotHttpError):
        parse(VALUE + b"garbage", WHOLE)


def served(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], attempt: Attempt
) -> FuzzExchange:
    async def scenario() -> FuzzExchange:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            return await exchange("127.0.0.1", server.sockets[0].getsockname()[1], attempt)

    return asyncio.run(scenario())


def test_a_missing_answer_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(exchanging, "ANSWER_S", 0.05)
    assert violation(WHOLE, served(silent, msgspec.structs.replace(WHOLE, pieces=[GOOD])), TYPES) == "no answer"


def test_a_reset_is_an_end() -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    assert served(resets, msgspec.structs.replace(WHOLE, pieces=[GOOD] * 9)) == FuzzExchange([], closed=True)


def test_growth_is_that_of_the_replica_that_grew_most() -> None:
    samples = [MemorySample(1, {"n1": 80, "n2": 90}), MemorySample(5, {"n1": 200, "n2": 90})]
    result = FuzzResult(
        seed=1,
        attempts=9,
        seconds=1,
        statuses={},
        families={},
        closed=0,
        unanswered=0,
        cut=0,
        checks=1,
        slowest_ms=1,
        memory=[*samples, MemorySample(9, {"n1": 81, "n2": 139})],
        violations=[],
    )
    assert result.growth_mb == 49


@pytest.mark.cluster
def test_replicas_stay_up_under_malformed_requests(tmp_path: Path) -> None:
    """`python -m tests.torture fuzz` throws a hundred thousand at them."""
    file = tmp_path / "fuzz.json"
    order = ["fuzz", "--requests", "3000", "--nodes", "3", "--seed", "5", "--json", str(file)]
    result = CliRunner().invoke(app, order)
    assert result.exit_code == 0, result.output
    found = msgspec.json.decode(file.read_bytes(), type=FuzzResult)
    assert found.attempts == 3000
    assert found.checks > 0
    assert found.statuses["400"] > 500
