"""What a client is told, or does, when a request does not end well."""

import asyncio
import socket
from unittest.mock import Mock

import pytest

from kvstore.api.commands import Record
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.server.http import response_writer
from kvstore.server.http.limits import HttpLimits
from tests.unit.kvstore.server.http.fake import Store, Wire, request, run

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("reason", "outcome", "status"),
    [
        (Reason.NO_LEADER, Outcome.FAILED, 503),
        (Reason.NO_LEADER, Outcome.UNKNOWN, 503),
        (Reason.TIMEOUT, Outcome.UNKNOWN, 503),
        (Reason.STOPPING, Outcome.FAILED, 503),
        (Reason.OVERLOADED, Outcome.FAILED, 429),
    ],
)
def test_a_refusal_tells_whether_the_write_may_have_been_done(reason: Reason, outcome: Outcome, status: int) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = Refused(reason, outcome)
        for method in ("PUT", "DELETE"):
            reply = await store.call(method, "/kv/a")
            assert reply.status == status
            assert reply.headers["retry-after"] == "1"
            problem = reply.problem()
            assert problem["outcome"] == outcome
            assert problem["type"] == f"urn:kvstore:problem:{reason}"
            assert ("read the key" in problem["detail"]) == (outcome is Outcome.UNKNOWN)
        store.replica.fails = Refused(reason, Outcome.FAILED)
        read = await store.call("GET", "/kv/a")
        assert (read.status, read.headers["retry-after"]) == (status, "1")
        assert "outcome" not in read.problem()

    run(scenario)


@pytest.mark.parametrize(
    ("reason", "setting"), [(Reason.OVERLOADED, "max_in_flight"), (Reason.QUEUED, "request_timeout_ms")]
)
def test_a_refusal_under_load_names_the_limit_that_was_reached(reason: Reason, setting: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = Refused(reason, Outcome.FAILED)
        problem = (await store.call("PUT", "/kv/a")).problem()
        assert problem["type"] == "urn:kvstore:problem:overloaded"
        assert [name for name in ("max_in_flight", "request_timeout_ms") if name in problem["detail"]] == [setting]

    run(scenario)


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), TimeoutError(), ConnectionResetError()])
def test_an_unexpected_error_is_logged_and_its_outcome_unknown(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(store: Store) -> None:
        store.replica.fails = error
        put = await store.call("PUT", "/kv/a", b"v")
        assert put.status == 500
        assert put.problem()["outcome"] == "unknown"
        assert b"secret" not in put.body
        assert (await store.call("GET", "/kv/a")).status == 500
        store.replica.fails = None
        assert (await store.call("PUT", "/kv/a", b"v")).status == 201

    run(scenario)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    caplog.clear()


def test_requests_above_the_limit_in_flight_are_refused_at_once() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        async with await store.wire() as first, await store.wire() as second, await store.wire() as third:
            first.send(request("PUT", "/kv/a", body=b"1"))
            second.send(request("GET", "/kv/a"))
            await store.replica.arrived.get()
            await store.replica.arrived.get()
            refused = await third.ask(request("PUT", "/kv/b", body=b"1"))
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.problem()["outcome"] == "failed"
            assert (await third.ask(request("GET", "/livez"))).status == 200
            assert b"kvstore_http_requests_in_flight 2.0" in (await third.ask(request("GET", "/metrics"))).body
            store.replica.gate.set()
            assert ((await first.reply()).status, (await second.reply()).status) == (201, 200)
            assert (await third.ask(request("PUT", "/kv/b", body=b"1"))).status == 201

    run(scenario, HttpLimits(max_in_flight=2))


async def _drop(wire: Wire) -> None:
    wire.writer.transport.abort()
    await asyncio.gather(wire.writer.wait_closed(), return_exceptions=True)


def test_a_client_that_leaves_does_not_take_its_write_along() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        wire = await store.wire()
        wire.send(request("PUT", "/kv/a", body=b"1"))
        await store.replica.arrived.get()
        await _drop(wire)
        store.replica.gate.set()
        await store.replica.done.get()
        assert (await store.call("GET", "/kv/a")).body == b"1"

    run(scenario)


@pytest.mark.parametrize("fields", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_within_its_body_writes_nothing(fields: str) -> None:
    async def scenario(store: Store) -> None:
        for _ in range(5):
            wire = await store.wire()
            expecting = request("PUT", "/kv/a", fields, "Expect: 100-continue")
            assert (await wire.ask(expecting)).line == "HTTP/1.1 100 Continue"
            wire.send(b"3\r\nabc\r\n")
            await _drop(wire)
        while "_in_flight 0.0" not in store.metrics.render().decode():
            assert (await store.call("GET", "/livez")).status == 200
        assert store.replica.arrived.empty()

    run(scenario)


def test_a_client_that_leaves_while_its_413_lingers() -> None:
    async def scenario(store: Store) -> None:
        for _ in range(5):
            wire = await store.wire()
            reply = await wire.ask(request("PUT", "/kv/a", f"Content-Length: {2 * MIB}") + bytes(MIB))
            assert reply.status == 413
            await _drop(wire)
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


def test_a_client_that_does_not_take_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_writer, "CLIENT_READ_TIMEOUT_S", 0.02)

    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(32 * MIB), 1, 1, 1)
        with socket.create_connection(("127.0.0.1", store.port)) as client:
            client.sendall(request("GET", "/kv/a"))
            await store.replica.arrived.get()
            await store.frontend._all_left.wait()
        assert (await store.call("GET", "/livez")).status == 200

    run(scenario)


def test_a_client_that_takes_a_long_answer_slowly_gets_all_of_it() -> None:
    async def scenario(store: Store) -> None:
        store.replica.records[b"a"] = Record(bytes(32 * MIB), 1, 1, 1)
        async with await store.wire() as wire:
            assert len((await wire.ask(request("GET", "/kv/a"))).body) == 32 * MIB
            assert (await wire.ask(request("GET", "/livez"))).status == 200

    run(scenario)


def test_a_client_that_is_gone_as_soon_as_it_has_asked_fails_nothing() -> None:
    """Its request and its reset come in one turn of the event loop: between them no task runs."""

    async def scenario(store: Store) -> None:
        for asked in (request("GET", "/livez"), request("PUT", "/kv/a", body=b"1"), request("GET", "/watch?prefix=")):
            gone = store.frontend._connect()
            gone.connection_made(Mock(spec=asyncio.Transport))
            gone.data_received(asked)
            gone.connection_lost(ConnectionResetError())
        await store.replica.done.get()
        while store.frontend._dispatcher._tasks or "_in_flight 0.0" not in store.metrics.render().decode():
            assert (await store.call("GET", "/livez")).status == 200

    run(scenario)
