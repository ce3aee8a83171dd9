"""Idempotency keys against scripted replicas: which writes are repeated, and the errors after repetitions."""

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
from tests.unit.kvstore.client.scripted import ScriptedReplica, end_after_three_rounds, problem, serving

NOTHING = Transact([], [], [])


def done(revision: int = 5) -> web.Response:
    return web.json_response({"revision": revision, "version": 1})


class LeasingReplica(ScriptedReplica):
    """A replica that grants leases 1, 2, ... and records the idempotency keys of writes in `keys`."""

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
        first, second = LeasingReplica(answer), LeasingReplica(done(), done(6))
        async with serving(first, second) as urls, Client(urls) as client:
            assert await client.put("k", b"v") == PutResult(5, 1)
            await client.put("k", b"v")
        assert (first.keys, second.keys) == (["1.1"], ["1.1", "1.2"])
        assert second.ended == ["/leases/1"]

    asyncio.run(run())


def test_an_unknown_outcome_stays_unknown_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    end_after_three_rounds(monkeypatch)

    async def run() -> None:
        replica = LeasingReplica(problem(503, "unknown"), *[problem(503, "failed")] * 100)
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(UnknownOutcome, match="may or may not have been executed"):
                await client.put("k", b"v")
        assert set(replica.keys) == {"1.1"}

    asyncio.run(run())


def test_a_write_whose_attempts_all_certainly_failed_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    end_after_three_rounds(monkeypatch)

    async def run() -> None:
        replica = LeasingReplica(*[problem(503, "failed") for _ in range(100)])
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(Unavailable):
                await client.put("k", b"v")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (
            problem(412, "failed", "precondition-failed"),
            ConditionFailed,
        ),  # stored, also for the first attempt
        (problem(507, "failed", "quota-reached"), UnknownOutcome),  # not stored
        (problem(410, "unknown", "idempotency-key-expired"), UnknownOutcome),
        (problem(409, "unknown", "answer-not-kept"), AnswerLost),
    ],
)
def test_a_refusal_after_an_attempt_of_unknown_outcome(second: web.Response, expected: type[Exception]) -> None:
    async def run() -> None:
        replica = LeasingReplica(problem(503, "unknown"), second)
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(expected) as caught:
                await client.put("k", b"v")
            assert type(caught.value) is expected

    asyncio.run(run())


def test_an_idempotency_key_that_expired_before_the_first_attempt_is_replaced() -> None:
    async def run() -> None:
        replica = LeasingReplica(problem(410, "unknown", "idempotency-key-expired"), done(), done())
        async with serving(replica) as urls, Client(urls) as client:
            await asyncio.gather(client.put("k", b"v"))
            await client.put("k", b"v")
        assert replica.keys == ["1.1", "2.1", "2.2"]

    asyncio.run(run())


def test_a_new_lease_is_granted_after_half_of_the_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "USED_S", 0.0)

    async def run() -> None:
        replica = LeasingReplica(done(), done())
        async with serving(replica) as urls, Client(urls) as client:
            await client.put("k", b"v")
            await client.put("k", b"v")
        assert replica.keys == ["1.1", "2.1"]

    asyncio.run(run())


def test_concurrent_first_writes_share_one_lease() -> None:
    async def run() -> None:
        replica = LeasingReplica(
            *[web.json_response({"succeeded": True, "revision": 1, "results": []}) for _ in range(5)]
        )
        async with serving(replica) as urls, Client(urls) as client:
            await asyncio.gather(*(client.txn(NOTHING) for _ in range(5)))
        assert replica.granted == 1
        assert sorted(replica.keys) == [f"1.{number}" for number in range(1, 6)]

    asyncio.run(run())


def test_a_write_for_which_no_lease_is_granted_was_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    end_after_three_rounds(monkeypatch)

    async def run() -> None:
        replica = ScriptedReplica(*[problem(503, "unknown") for _ in range(100)])
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(Unavailable, match="no lease was granted"):
                await client.put("k", b"v")
        assert {path for _, path, _ in replica.asked} == {"/leases"}

    asyncio.run(run())


def test_a_result_that_is_too_large_to_send_is_lost() -> None:
    async def run() -> None:
        replica = LeasingReplica(problem(413, "unknown", "answer-too-large"), problem(413, "failed", "value-too-large"))
        async with serving(replica) as urls, Client(urls) as client:
            with pytest.raises(AnswerLost, match=re.escape("what to do")):
                await client.txn(NOTHING)
            with pytest.raises(Rejected):
                await client.txn(NOTHING)

    asyncio.run(run())
