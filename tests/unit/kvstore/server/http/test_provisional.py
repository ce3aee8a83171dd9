"""A lease is short until its client has the answer that names it."""

import asyncio
import json
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest

from kvstore.api.commands import Command, KeepLeaseAlive, ReleaseLock, Result
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.limits import PROVISIONAL_TTL_S
from tests.unit.kvstore.server.http.fake import FakeReplica, Reply, Store, Wire, request, run
from tests.unit.kvstore.server.http.test_leases import grant

HOUR = b'{"ttl_s": 3600}'
SHORT_MS = PROVISIONAL_TTL_S * 1000
HOUR_MS = 3_600_000


class Recorder:
    """The TTL of each lease after each command of a replica."""

    def __init__(self, replica: FakeReplica) -> None:
        self.ttls: dict[int, list[int]] = {}
        self._replica = replica
        replica.on_change(self._record)

    def _record(self) -> None:
        for number, lease in self._replica.lease_index.leases.items():
            known = self.ttls.setdefault(number, [])
            if known[-1:] != [lease.terms.ttl_ms]:
                known.append(lease.terms.ttl_ms)


async def acquire(store: Store, **body: Any) -> Reply:
    return await store.call("POST", "/locks/l", json.dumps(body))


async def waiting(store: Store, wire: Wire, *fields: str, **body: Any) -> int:
    """Send a request that waits behind the holder of the lock, and return its lease."""
    wire.send(request("POST", "/locks/l", *fields, body=json.dumps({"wait_s": 60, **body}).encode()))
    while len(store.replica.lease_index.locks[b"l"]) < 2:
        await store.replica.done.get()
    return list(store.replica.lease_index.locks[b"l"].values())[1].lease


def release(store: Store, lease: int) -> None:
    store.replica.write(ReleaseLock(b"l", lease), lambda _: None)


async def gone(store: Store, lease: int) -> None:
    while lease in store.replica.lease_index.leases:
        await store.replica.done.get()


async def dropped(store: Store, wire: Wire) -> None:
    """Reset a connection, and wait until the server has noticed."""
    lost = asyncio.Event()
    (connection,) = store.frontend._connections
    before = connection._on_lost

    def on_lost(connection: Any) -> None:
        before(connection)
        lost.set()

    connection._on_lost = on_lost
    wire.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()
    await lost.wait()


@pytest.mark.parametrize(("target", "status"), [("/leases", 201), ("/locks/l", 200)])
def test_a_lease_gets_its_full_ttl_in_the_last_step_before_the_answer(target: str, status: int) -> None:
    async def scenario(store: Store) -> None:
        recorder = Recorder(store.replica)
        assert (await store.call("POST", target, HOUR)).status == status
        assert recorder.ttls == {1: [SHORT_MS, HOUR_MS]}

    run(scenario)


@pytest.mark.parametrize("target", ["/leases", "/locks/l"])
def test_a_short_lease_takes_one_command(target: str) -> None:
    async def scenario(store: Store) -> None:
        await store.call("POST", target, b'{"ttl_s": 10}')
        assert store.replica.machine.revision == 1

    run(scenario)


def test_a_lease_that_waits_for_a_lock_stays_short_until_it_holds_the_lock() -> None:
    async def scenario(store: Store) -> None:
        holder = await grant(store)
        await acquire(store, lease=holder)
        recorder = Recorder(store.replica)
        async with await store.wire() as wire:
            lease = await waiting(store, wire, ttl_s=3600)
            assert recorder.ttls[lease] == [SHORT_MS]
            release(store, holder)
            assert json.loads((await wire.reply()).body)["held"] is True
            assert recorder.ttls[lease] == [SHORT_MS, HOUR_MS]

    run(scenario)


def test_a_request_that_gives_up_waiting_goes_on_with_its_lease_and_its_ttl() -> None:
    async def scenario(store: Store) -> None:
        holder = await grant(store)
        await acquire(store, lease=holder)
        recorder = Recorder(store.replica)
        queued = await acquire(store, ttl_s=3600, wait_s=0.01)
        lease = json.loads(queued.body)["lease"]
        assert (queued.status, recorder.ttls[lease]) == (202, [SHORT_MS])
        async with await store.wire() as wire:
            assert await waiting(store, wire, lease=lease, ttl_s=3600) == lease
            release(store, holder)
            assert json.loads((await wire.reply()).body)["held"] is True
        assert recorder.ttls[lease] == [SHORT_MS, HOUR_MS]
        assert lease in store.replica.lease_index.leases

    run(scenario)


def test_a_lease_that_its_client_knows_is_not_shortened_while_it_waits() -> None:
    async def scenario(store: Store) -> None:
        holder, lease = await grant(store), await grant(store, 60)
        await acquire(store, lease=holder)
        recorder = Recorder(store.replica)
        assert (await acquire(store, lease=lease, ttl_s=3600, wait_s=0.01)).status == 202
        assert recorder.ttls[lease] == [60_000]

    run(scenario)


@pytest.mark.parametrize("target", ["/leases", "/locks/l"])
def test_the_lease_of_a_client_that_is_gone_before_the_answer_is_revoked(target: str) -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()
        recorder = Recorder(store.replica)
        wire = await store.wire()
        wire.send(request("POST", target, body=HOUR))
        await store.replica.arrived.get()
        await dropped(store, wire)
        store.replica.gate.set()
        while not recorder.ttls:
            await store.replica.done.get()
        await gone(store, 1)
        assert recorder.ttls == {1: [SHORT_MS]}
        assert store.replica.lease_index.locks == {}

    run(scenario)


def test_the_lease_of_a_client_that_is_gone_while_it_gets_its_full_ttl_is_revoked() -> None:
    async def scenario(store: Store) -> None:
        wire = await store.wire()
        store.replica.hearers.append(store.replica.gate.clear)  # the second command has to wait
        wire.send(request("POST", "/locks/l", body=HOUR))
        await store.replica.arrived.get()
        await store.replica.arrived.get()
        assert store.replica.lease_index.leases[1].terms.ttl_ms == SHORT_MS
        await dropped(store, wire)
        store.replica.hearers.pop()
        store.replica.gate.set()
        await gone(store, 1)

    run(scenario)


def test_a_waiter_that_is_gone_when_its_turn_comes_gives_the_lock_up() -> None:
    async def scenario(store: Store) -> None:
        holder = await grant(store)
        await acquire(store, lease=holder)
        recorder = Recorder(store.replica)
        wire = await store.wire()
        lease = await waiting(store, wire, ttl_s=3600)
        await dropped(store, wire)
        release(store, holder)
        await gone(store, lease)
        assert recorder.ttls[lease] == [SHORT_MS]
        assert store.replica.lease_index.locks == {}

    run(scenario)


def test_the_lease_of_a_request_that_can_be_repeated_stays_short_and_is_not_revoked() -> None:
    async def scenario(store: Store) -> None:
        holder, keys = await grant(store), await grant(store)
        await acquire(store, lease=holder)
        recorder = Recorder(store.replica)
        key = f"Idempotency-Key: {keys}.1"
        wire = await store.wire()
        lease = await waiting(store, wire, key, ttl_s=3600)
        await dropped(store, wire)
        release(store, holder)
        async with await store.wire() as again:
            body = json.dumps({"wait_s": 60, "ttl_s": 3600}).encode()
            reply = await again.ask(request("POST", "/locks/l", key, body=body))
        assert (reply.status, json.loads(reply.body)["lease"]) == (200, lease)
        assert recorder.ttls[lease] == [SHORT_MS, HOUR_MS]

    run(scenario)


def test_a_client_that_closes_its_side_after_a_request_is_answered() -> None:
    async def scenario(store: Store) -> None:
        async with await store.wire() as wire:
            wire.send(request("POST", "/locks/l", body=HOUR))
            wire.writer.write_eof()
            assert (await wire.reply()).status == 200
        assert store.replica.lease_index.leases[1].terms.ttl_ms == HOUR_MS

    run(scenario)


def test_a_lease_that_was_granted_and_not_confirmed_is_of_unknown_outcome() -> None:
    async def scenario(store: Store) -> None:
        def fail() -> None:
            store.replica.fails = Refused(Reason.NO_LEADER, Outcome.FAILED)

        store.replica.hearers.append(fail)
        reply = await store.call("POST", "/leases", HOUR)
        assert (reply.status, reply.problem()["outcome"]) == (503, "unknown")
        assert store.replica.lease_index.leases[1].terms.ttl_ms == SHORT_MS

    run(scenario)


def test_a_renewal_that_is_refused_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """An election takes less time than two renewals."""

    async def scenario(store: Store) -> None:
        holder = await grant(store)
        await acquire(store, lease=holder)
        refused = asyncio.Event()
        apply = store.replica.write

        def refuse_first(command: Command, reply: Callable[[Result | Refused], None]) -> None:
            if isinstance(command, KeepLeaseAlive) and not refused.is_set():
                refused.set()
                reply(Refused(Reason.NO_LEADER, Outcome.FAILED))
            else:
                apply(command, reply)

        monkeypatch.setattr(store.replica, "write", refuse_first)
        async with await store.wire() as wire:
            await waiting(store, wire, ttl_s=0.1)
            await refused.wait()
            release(store, holder)
            assert json.loads((await wire.reply()).body)["held"] is True

    run(scenario)
