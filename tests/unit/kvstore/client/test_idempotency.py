"""A client that numbers its writes, against scripted replicas: what it repeats, and what that says."""

import asyncio
import re

import pytest
from aiohttp import web

from kvstore.api.commands import PutResult, Transact
from kvstore.client import (
    AnswerLost,
    Client,
    ConditionFailed,
    Rejected,
    Unavailable,
    UnknownOutcome,
    idempotency,
)
from tests.unit.kvstore.client.scripted import ScriptedReplica, problem, serving

NOTHING = Transact([], [], [])


def done(revision: int = 5) -> web.Response:
    return web.json_response({"revision": revision, "version": 1})


class Numbered(ScriptedReplica):
    """Grants leases 1, 2, ...; `keys` are those of the writes that came."""

    def __init__(self, *answers: web.Response | None) -> None:
        super().__init__(*answers)
        self.granted = 0
        self.keys: list[str] = []
        self.ended: list[str] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path == "/leases":
            self.granted += 1
            return web.json_response({"id": self.granted, "ttl_s": 600.0}, status=201)
        if request.raw_path.startswith("/leases/"):
            self.ended.append(request.raw_path)
            return web.json_response({"revision": 1, "deleted": 0})
        self.keys.append(request.headers["Idempotency-Key"])
        return await super().handle(request)


@pytest.mark.parametrize("answer", [problem(503, "unknown"), problem(500), None])
def test_a_write_of_unknown_outcome_is_repeated_elsewhere_under_its_key(answer: web.Response | None) -> None:
    async def run() -> None:
        first, second = Numbered(answer), Numbered(done(), done(6))
        async with serving(first, second) as urls, Client(urls) as client:
            assert await client.put("k", b"v") == PutResult(5, 1)
            await client.put("k", b"v")
        assert (first.keys, second.keys) == (["1.1"], ["1.1", "1.2"])
        assert second.ended == ["/leases/1"]

    asyncio.run(run())


def test_at_the_deadline_its_outcome_is_unknown_whatever_came_last() -> None:
    async def run() -> None:
        replica = Numbered(problem(503, "unknown"), *[problem(503, "failed")] * 100)
        async with serving(replica) as urls, Client(urls, timeout_ms=200) as client:
            with pytest.raises(UnknownOutcome, match="may have been done"):
                await client.put("k", b"v")
        assert set(replica.keys) == {"1.1"}

    asyncio.run(run())


def test_what_only_ever_failed_for_certain_is_not_done() -> None:
    async def run() -> None:
        replica = Numbered(*[problem(503, "failed") for _ in range(100)])
        async with serving(replica) as urls, Client(urls, timeout_ms=200) as client:
            with pytest.raises(Unavailable):
                await client.put("k", b"v")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (problem(412, "failed", "precondition-failed"), ConditionFailed),  # that is kept: the first will not be done
        (problem(507, "failed", "quota-reached"), UnknownOutcome),  # that is not
        (problem(410, "unknown", "idempotency-key-expired"), UnknownOutcome),
        (problem(409, "unknown", "answer-not-kept"), AnswerLost),
    ],
)
def test_what_a_refusal_says_after_an_attempt_of_unknown_outcome(
    second: web.Response, expected: type[Exception]
) -> None:
    async def run() -> None:
        replica = Numbered(problem(503, "unknown"), second)
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(expected) as caught:
                await client.put("k", b"v")
            assert type(caught.value) is expected

    asyncio.run(run())


def test_a_key_that_is_over_at_the_first_attempt_is_replaced() -> None:
    async def run() -> None:
        replica = Numbered(problem(410, "unknown", "idempotency-key-expired"), done(), done())
        async with serving(replica) as urls, Client(urls) as client:
            await asyncio.gather(client.put("k", b"v"))
            await client.put("k", b"v")
        assert replica.keys == ["1.1", "2.1", "2.2"]

    asyncio.run(run())


def test_a_lease_is_used_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "USED_S", 0.0)

    async def run() -> None:
        replica = Numbered(done(), done())
        async with serving(replica) as urls, Client(urls) as client:
            await client.put("k", b"v")
            await client.put("k", b"v")
        assert replica.keys == ["1.1", "2.1"]

    asyncio.run(run())


def test_many_first_writes_take_one_lease() -> None:
    async def run() -> None:
        replica = Numbered(*[web.json_response({"succeeded": True, "revision": 1, "results": []}) for _ in range(5)])
        async with serving(replica) as urls, Client(urls) as client:
            await asyncio.gather(*(client.txn(NOTHING) for _ in range(5)))
        assert replica.granted == 1
        assert sorted(replica.keys) == [f"1.{number}" for number in range(1, 6)]

    asyncio.run(run())


def test_a_write_for_which_no_lease_is_granted_was_not_done() -> None:
    async def run() -> None:
        replica = ScriptedReplica(*[problem(503, "unknown") for _ in range(100)])
        async with serving(replica) as urls, Client(urls, timeout_ms=100) as client:
            with pytest.raises(Unavailable, match="no lease was granted"):
                await client.put("k", b"v")
        assert {path for _, path, _ in replica.asked} == {"/leases"}

    asyncio.run(run())


def test_an_answer_that_is_too_large_belongs_to_what_was_done() -> None:
    async def run() -> None:
        replica = Numbered(problem(413, "unknown", "answer-too-large"), problem(413, "failed", "value-too-large"))
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(AnswerLost, match=re.escape("what to do")):
                await client.txn(NOTHING)
            with pytest.raises(Rejected):
                await client.txn(NOTHING)

    asyncio.run(run())
