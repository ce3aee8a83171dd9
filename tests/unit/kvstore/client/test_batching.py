"""Batches of concurrent writes: which writes form one, and that each gets the result that it would get alone."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from kvstore.api.commands import DeleteResult, Put, PutResult, Record
from kvstore.client import (
    Client,
    ConditionFailed,
    FencingToken,
    LockLost,
    NoSuchLease,
    Rejected,
    Unavailable,
    UnknownOutcome,
    batching,
)
from kvstore.client.batching import MAX_BYTES, MAX_REQUESTS, MAX_WEIGHT
from kvstore.server.http.limits import HttpLimits
from tests.unit.kvstore.client.scripted import ScriptedReplica, SilentReplica, end_after_three_rounds, problem, serving
from tests.unit.kvstore.server.http.fake import Store, run

ALL = 20


async def settled(results: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*results, return_exceptions=True))


def client_of(store: Store, *, exactly_once: bool = False) -> Client:
    return Client([f"http://127.0.0.1:{store.port}"], exactly_once=exactly_once)


class RecordedCommands:
    """The commands that a front end has received."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[object] = []
        write = store.replica.write

        def noted(command: Any, reply: Any) -> None:
            self.commands.append(command)
            write(command, reply)

        monkeypatch.setattr(store.replica, "write", noted)


def test_concurrent_writes_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        recorded = RecordedCommands(store, monkeypatch)
        async with client_of(store) as client:
            results = await settled([client.put(f"k{number}", b"%d" % number) for number in range(ALL)])
            assert results == [PutResult(1, 1)] * ALL
            assert await client.get("k7") == Record(b"7", 1, 1, 1, 0)
        assert len(recorded.commands) == 1

    run(scenario)


def test_a_single_write_is_an_ordinary_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        recorded = RecordedCommands(store, monkeypatch)
        async with client_of(store) as client:
            await client.put("k", b"v")
        assert recorded.commands == [Put(b"k", b"v")]

    run(scenario)


def test_each_write_of_a_batch_gets_the_result_that_it_would_get_alone() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            await client.put("there", b"")
            await client.put("gone", b"")
            assert await settled(
                [
                    client.put("new", b"\xff\x00"),
                    client.put("there", b"2", if_revision=1),
                    client.delete("gone", if_revision=2),
                    client.delete("never"),
                    client.put("absent", b"", if_absent=True),
                    client.put("short", b"", ttl_s=9),
                ]
            ) == [PutResult(3, 1), PutResult(3, 2), DeleteResult(3, 1, 2), None, PutResult(3, 1), PutResult(4, 1)]
            assert await settled([client.delete("absent"), client.delete("new")]) == [
                DeleteResult(5, 1, 3),
                DeleteResult(5, 1, 3),
            ]

    run(scenario)


def test_a_write_that_fails_in_a_batch_has_the_server_s_message_and_the_others_succeed() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            await client.put("there", b"")
            results = await settled(
                [
                    client.put("a", b""),
                    client.put("there", b"", if_absent=True),
                    client.put("none", b"", if_revision=7),
                    client.put("guarded", b"", fence=FencingToken(b"lock", 5)),
                    client.delete("there", if_revision=9),
                    client.put("b", b""),
                ]
            )
            assert results[0] == results[5] == PutResult(2, 1)
            kinds = [ConditionFailed, ConditionFailed, LockLost, ConditionFailed]
            assert [type(result) for result in results[1:5]] == kinds
            assert [result.revision for result in (results[1], results[2], results[4])] == [1, None, 1]
            assert "GET the key, and repeat" in str(results[1])
            assert results[3].fence == 0

    run(scenario)


def test_the_writes_of_a_batch_that_is_rejected_as_a_whole_are_sent_alone() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            results = await settled(
                [
                    client.put("a", b""),
                    client.put("b", b"", lease=99),  # for which the transaction is refused
                    client.put("", b""),  # and for which it is invalid
                    client.put("c", b""),
                ]
            )
            assert [type(result) for result in results] == [PutResult, NoSuchLease, Rejected, PutResult]
            lease = await client.lease(ttl_s=10)
            await settled([client.put("d", b"", lease=lease), client.put("e", b"", lease=lease.id)])
            assert store.replica.machine.lease_index.lease_of == {b"d": lease.id, b"e": lease.id}

    run(scenario)


def test_a_batch_that_is_too_large_for_a_replica_is_sent_as_single_writes() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            results = await settled([client.put(f"k{number}", bytes(50)) for number in range(ALL)])
            assert [result.version for result in results] == [1] * ALL

    run(scenario, limits=HttpLimits(max_value_bytes=100))


def test_two_writes_of_one_key_have_different_revisions() -> None:
    """With equal revisions, the caller of one write could take the other write for its own."""

    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            results = await settled([client.put("k", b"1"), client.put("other", b""), client.put("k", b"2")])
            assert results[0].revision == results[1].revision != results[2].revision
            assert {results[0].version, results[2].version} == {1, 2}

    run(scenario)


@pytest.mark.parametrize(
    ("writes", "batches"),
    [
        (lambda client: [client.put(f"k{n}", b"") for n in range(MAX_WEIGHT + 1)], [MAX_WEIGHT, 1]),
        (lambda client: [client.delete(f"k{n}") for n in range(MAX_WEIGHT)], [MAX_WEIGHT // 2] * 2),
        (lambda client: [client.put(f"k{n}", b"", if_absent=True) for n in range(400)], [333, 67]),
        (lambda client: [client.put(f"k{n}", bytes(b"x" * (MAX_BYTES // 3))) for n in range(3)], [2, 1]),
        (lambda client: [client.put("a", b""), client.put("k", b"\xff" * MAX_BYTES)], [1, 1]),
    ],
)
def test_a_batch_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
    writes: Callable[[Client], list[Coroutine[Any, Any, Any]]],
    batches: list[int],
) -> None:
    async def scenario(store: Store) -> None:
        recorded = RecordedCommands(store, monkeypatch)
        async with client_of(store) as client:
            assert [each for each in await settled(writes(client)) if isinstance(each, Exception)] == []
        sizes = [len(getattr(command, "then", [0])) for command in recorded.commands]
        assert sorted(sizes, reverse=True) == batches  # they are under way together: either may come first

    run(scenario)


def test_writes_that_arrive_while_requests_are_under_way_wait_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        recorded = RecordedCommands(store, monkeypatch)
        store.replica.gate.clear()
        async with client_of(store) as client:
            puts = []
            for number in range(MAX_REQUESTS):
                puts.append(asyncio.create_task(client.put(f"first{number}", b"")))
                await store.replica.arrived.get()
            puts += [asyncio.create_task(client.put(f"then{number}", b"")) for number in range(ALL)]
            await asyncio.sleep(0)
            assert len(recorded.commands) == MAX_REQUESTS
            store.replica.gate.set()
            await asyncio.gather(*puts)
        assert len(recorded.commands) == MAX_REQUESTS + 1

    run(scenario)


def test_a_cancelled_write_that_still_waits_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        recorded = RecordedCommands(store, monkeypatch)
        async with client_of(store) as client:
            gone = asyncio.create_task(client.put("gone", b""))
            stays = asyncio.create_task(client.put("stays", b""))
            await asyncio.sleep(0)
            gone.cancel()
            await stays
        assert recorded.commands == [Put(b"stays", b"")]

    run(scenario)


def test_all_writes_of_a_batch_share_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    end_after_three_rounds(monkeypatch)

    async def scenario() -> None:
        for answers, expected in (([None], UnknownOutcome), ([problem(503, "failed") for _ in range(99)], Unavailable)):
            replica = ScriptedReplica(*answers)
            async with serving(replica) as urls, Client(urls, exactly_once=False) as client:
                results = await settled([client.put(f"k{number}", b"") for number in range(3)])
                assert [type(result) for result in results] == [expected] * 3
            assert {path for _, path, _ in replica.asked} == {"/txn"}

    asyncio.run(scenario())


def test_a_batch_has_one_idempotency_key() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store, exactly_once=True) as client:
            await settled([client.put(f"k{number}", b"") for number in range(3)])
            (lease,) = store.replica.machine.lease_index.leases.values()
            assert lease.answers == {1}
        assert not store.replica.machine.lease_index.leases

    run(scenario)


def test_closing_the_client_ends_all_waits() -> None:
    async def scenario() -> None:
        replica = SilentReplica()
        async with serving(replica) as urls:
            async with Client(urls, exactly_once=False) as client:
                puts = []
                for number in range(MAX_REQUESTS):
                    puts.append(asyncio.create_task(client.put(f"k{number}", b"")))
                    await replica.came.acquire()
                puts.append(asyncio.create_task(client.put("last", b"")))
                await asyncio.sleep(0)
            results = await settled(puts)
        assert [type(result) for result in results] == [*[UnknownOutcome] * MAX_REQUESTS, Unavailable]

    asyncio.run(scenario())


def test_a_queued_write_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GRACE_S", 0.0)

    async def scenario() -> None:
        async with serving(SilentReplica()) as urls, Client(urls, timeout_ms=300, exactly_once=False) as client:
            results = await settled([client.put(f"k{number}", b"", ttl_s=9) for number in range(MAX_REQUESTS + 1)])
            assert all(isinstance(result, UnknownOutcome | Unavailable) for result in results)

    asyncio.run(scenario())


def test_a_client_that_is_not_open_says_so() -> None:
    async def use() -> None:
        await Client(exactly_once=False).put("k", b"")

    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(use())


def test_a_value_of_another_type_fails_its_own_call_only() -> None:
    async def scenario(store: Store) -> None:
        async with client_of(store) as client:
            text: Any = "text"
            results = await settled([client.put("a", b""), client.put("b", text), client.put("c", b"")])
            assert [type(result) for result in results] == [PutResult, TypeError, PutResult]

    run(scenario)


def test_a_response_of_another_shape_is_an_error() -> None:
    async def scenario() -> None:
        async with (
            serving(ScriptedReplica(web.Response(body=b"{}"))) as urls,
            Client(urls, exactly_once=False) as client,
        ):
            with pytest.raises(UnknownOutcome, match="not as a replica"):
                await client.put("k", b"")

    asyncio.run(scenario())
