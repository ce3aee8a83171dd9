"""Who is asked, what counts as a failure, and what one client knows."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, RawTestServer

from bench.lifecycle.load import Load, puts
from kvstore.api.commands import Put
from kvstore.server.http.transaction_body import transaction_of
from tests.torture.lifecycle import clients
from tests.torture.lifecycle.clients import Failure, Traffic, unexcused
from tests.torture.lifecycle.ledger import Ledger

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def url(server: BaseTestServer) -> str:
    return f"http://{server.host}:{server.port}"


def replica(held: dict[str, bytes]) -> Answer:
    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/txn":
            puts = [operation for operation in transaction_of(await request.read()).then if isinstance(operation, Put)]
            held.update({f"/kv/{put.key.decode()}": put.value for put in puts})
            results = [{"put": {"revision": len(held), "version": 1}} for _ in puts]
            return web.json_response({"succeeded": True, "revision": len(held), "results": results})
        if request.method == "PUT":
            held[request.path] = await request.read()
            return web.json_response({"key": "k", "revision": len(held), "version": 1})
        if request.path not in held:
            return web.json_response({"type": "urn:kvstore:problem:no-such-key"}, status=404)
        headers = dict.fromkeys(("KV-Revision", "KV-Create-Revision", "KV-Version"), "1")
        return web.Response(body=held[request.path], headers=headers)

    return answer


async def refuse(_: web.BaseRequest) -> web.Response:
    return web.json_response({"outcome": "failed"}, status=503)


async def not_sure(_: web.BaseRequest) -> web.Response:
    return web.json_response({"outcome": "unknown"}, status=503)


async def written(answers: dict[str, Answer]) -> Traffic:
    """What one client does with these replicas until something has become of its first writes."""
    servers = {name: RawTestServer(answer) for name, answer in answers.items()}
    for server in servers.values():
        await server.start_server()
    traffic = Traffic(lambda: {name: url(server) for name, server in servers.items()}, seed=1)
    task = asyncio.create_task(traffic.client(0))
    async with asyncio.timeout(10):
        while not (traffic.acknowledged or traffic.failures):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    traffic.stop()
    await task
    for server in servers.values():
        await server.close()
    return traffic


def test_a_write_that_one_replica_refuses_is_made_at_another() -> None:
    traffic = asyncio.run(written({"n1": refuse, "n2": replica({})}))
    assert traffic.failures == []
    assert {call.replica for call in traffic.calls if call.outcome == "answered"} == {"n2"}


def test_a_write_that_nobody_takes_in_time_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_S", 0.2)
    (failure, *_) = asyncio.run(written({"n1": refuse, "n2": refuse})).failures
    assert failure.why.startswith("refused at n")
    assert failure.returned_ns > failure.called_ns


def test_a_write_of_unknown_outcome_is_not_repeated() -> None:
    traffic = asyncio.run(written({"n1": not_sure}))
    unknown = [call for call in traffic.calls if call.outcome == "unknown"]
    assert len(traffic.failures) == len(unknown) == len({call.value for call in unknown})


def test_a_failure_is_excused_by_a_fault_that_overlaps_it() -> None:
    early, met, late = Failure("a", 0, 9, ""), Failure("b", 5, 12, ""), Failure("c", 21, 30, "")
    assert unexcused([early, met, late], [(10, 20)]) == [early, late]


def test_what_a_replica_should_hold_is_read_back() -> None:
    held: dict[str, bytes] = {}

    async def scenario() -> tuple[list[str], list[str]]:
        async with RawTestServer(replica(held)) as server:
            ledger = Ledger(5, Random(1))
            await ledger.put_all([url(server)])
            await ledger.put_some([url(server)], 3)
            sound = await ledger.read_back(url(server), 1)
            held["/kv/k2"] = b"something else"
            return sound, await ledger.read_back(url(server), 1)

    sound, (wrong,) = asyncio.run(scenario())
    assert sound == []
    assert "a linearizable read of k2 saw " in wrong


def test_a_load_repeats_what_is_refused_and_ends_with_its_requests() -> None:
    held: dict[str, bytes] = {}
    refusals = [True, True]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await (refuse if refusals and refusals.pop() else replica(held))(request)

    async def scenario() -> Load:
        async with RawTestServer(answer) as server:
            load = Load([url(server)], 3, puts(7, 100))
            await load.run()
            return load

    load = asyncio.run(scenario())
    assert (load.answered, load.refused, len(load.take_latencies_ms())) == (7, 2, 7)
    assert held.keys() == {f"/kv/k{number}" for number in range(7)}
    assert {len(value) for value in held.values()} == {100}
    assert load.take_latencies_ms() == []
