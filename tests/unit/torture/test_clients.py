"""The replica that a client asks, failed writes, and the write journal."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, RawTestServer

from kvstore.api.commands import Put
from kvstore.api.json.transaction_parsing import transaction_of
from tests.torture import clients
from tests.torture.clients import FailedWrite, RecordingClients, unexcused
from tests.torture.write_journal import WriteJournal

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def url(server: BaseTestServer) -> str:
    return f"http://{server.host}:{server.port}"


def replica(held: dict[str, bytes]) -> Handler:
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


async def written(answers: dict[str, Handler]) -> RecordingClients:
    """What one client does with these replicas until something has become of its first writes."""
    servers = {name: RawTestServer(answer) for name, answer in answers.items()}
    for server in servers.values():
        await server.start_server()
    recorded = RecordingClients(lambda: {name: url(server) for name, server in servers.items()}, seed=1, retries=True)
    task = asyncio.create_task(recorded.run(0))
    async with asyncio.timeout(300):
        while not (recorded.acknowledged or recorded.failures):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    recorded.stop()
    await task
    for server in servers.values():
        await server.close()
    return recorded


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "AVOID_S", (0.1, 0.2))


def test_a_write_that_one_replica_refuses_is_sent_to_another() -> None:
    recorded = asyncio.run(written({"n1": refuse, "n2": replica({})}))
    assert recorded.failures == []
    assert {call.replica for call in recorded.calls if call.outcome == "answered"} == {"n2"}


def test_a_write_that_all_replicas_refuse_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_S", 0.2)
    (failure, *_) = asyncio.run(written({"n1": refuse, "n2": refuse})).failures
    assert failure.why.startswith("refused at n")
    assert failure.returned_ns > failure.called_ns


def test_a_write_of_unknown_outcome_is_not_repeated() -> None:
    recorded = asyncio.run(written({"n1": not_sure}))
    unknown = [call for call in recorded.calls if call.outcome == "unknown"]
    assert len(recorded.failures) == len(unknown) == len({call.value for call in unknown})


def test_a_failure_is_excused_by_a_fault_that_overlaps_it() -> None:
    early, met, late = FailedWrite("a", 0, 9, ""), FailedWrite("b", 5, 12, ""), FailedWrite("c", 21, 30, "")
    assert unexcused([early, met, late], [(10, 20)]) == [early, late]


def test_a_changed_value_is_a_violation() -> None:
    held: dict[str, bytes] = {}

    async def scenario() -> tuple[list[str], list[str]]:
        async with RawTestServer(replica(held)) as server:
            journal = WriteJournal(5, Random(1))
            await journal.put_all([url(server)])
            await journal.put_some([url(server)], 3)
            sound = await journal.violations(url(server), 1)
            held["/kv/k2"] = b"something else"
            return sound, await journal.violations(url(server), 1)

    sound, (wrong,) = asyncio.run(scenario())
    assert sound == []
    assert "a linearizable read of k2 saw " in wrong
