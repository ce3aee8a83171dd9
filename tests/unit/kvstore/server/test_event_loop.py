"""The asyncio driver in one process: what only it does. Real processes are in tests/cluster."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import uvloop

from kvstore.api.address import Address
from kvstore.api.commands import Put, PutResult, Result
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from kvstore.api.status import Standing
from kvstore.peers.handshake_messages import ProcessIdentity, Start
from kvstore.server.config import Settings
from kvstore.server.event_loop import boot_clock
from kvstore.server.process import ReplicaServer
from kvstore.server.reply_future import reply_of
from kvstore.testing.machine import free_ports
from paxos.ready import Write
from storage.base import Founding, SeenStart, StateWrite, StorageError
from storage.inspection import inspect
from storage.sqlite import SqliteStorage, open_storage

PATIENCE_S = 300


def put(server: ReplicaServer, command: Put) -> Coroutine[None, None, Result]:
    return reply_of(partial(server.service.write, command))


def get(server: ReplicaServer, consistency: Consistency) -> Coroutine[None, None, ReadAnswer]:
    return reply_of(partial(server.service.read, b"k", consistency))


def settings(tmp_path: Path, members: int = 1) -> Settings:
    listen, *peers = free_ports("127.0.0.1", 1 + members)
    return Settings(
        node="n1",
        members={f"n{number}": Address("127.0.0.1", port) for number, port in enumerate(peers, 1)},
        listen=Address("127.0.0.1", listen),
        data=tmp_path / "n1",
        secret="0123456789abcdef",
        request_timeout_ms=200 if members > 1 else 20_000,
    )


def run(story: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story

    uvloop.run(bounded())


async def started(settings: Settings) -> tuple[ReplicaServer, SqliteStorage]:
    storage = open_storage(settings.data, settings.cluster, settings.node, settings.members)
    server = ReplicaServer(settings, storage)
    await server.start()
    return server, storage


async def until(holds: Callable[[], bool], turn: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0.005)) -> None:
    while not holds():
        await turn()


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        config = settings(tmp_path)
        server, _ = await started(config)
        assert await put(server, Put(b"k", b"v")) == PutResult(revision=1, version=1)
        await server.stop()
        server, _ = await started(config)
        read = await get(server, Consistency.LINEARIZABLE)
        assert read.record is not None
        assert (read.record.value, read.record.revision) == (b"v", 1)
        await server.stop()

    run(story())


def test_rule_4_a_storage_error_ends_the_replica_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        server, storage = await started(settings(tmp_path))
        await put(server, Put(b"k", b"v"))

        def fail(_writes: list[Write]) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(storage, "write", fail)
        write = asyncio.create_task(put(server, Put(b"k", b"lost")))
        await asyncio.wait([server.ended])
        assert isinstance(server.ended.exception(), OSError)
        assert not server.service.status().ready
        assert not write.done()
        write.cancel()
        await server.abandon()
        storage.close()

    run(story())


def test_rule_28_the_start_of_a_peer_is_durable_before_its_link_is_used_and_known_after_a_restart(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        config = settings(tmp_path)
        server, storage = await started(config)
        durable = asyncio.Event()
        server.driver.transport.remember(ProcessIdentity(9, 4, 5), durable.set)
        assert not durable.is_set()
        await durable.wait()
        with inspect(config.data) as files:
            stored = files.storage(files.identity()).recovered().seen
        await server.stop()
        assert stored == (SeenStart(9, 4, 5),)
        server, storage = await started(config)
        local, lineage = server.driver.transport.local, storage.recovered().lineage
        await server.stop()
        assert local.seen == {9: Start(4, 5)}
        assert (local.identity.boot, local.identity.life) == (2, lineage.life)
        assert (local.includes(2, lineage.life), local.includes(1, 0)) == (True, False)

    run(story())


def test_an_error_in_the_protocol_ends_the_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        server, _ = await started(settings(tmp_path))
        await put(server, Put(b"k", b"v"))

        def fail() -> None:
            raise RuntimeError("planted")

        monkeypatch.setattr(server.driver.node, "step", fail)
        write = asyncio.create_task(put(server, Put(b"k", b"lost")))
        await asyncio.wait([server.ended])
        assert str(server.ended.exception()) == "planted"
        write.cancel()
        await server.abandon()
        server.driver._writer.stop()

    run(story())


def test_alone_of_three_it_refuses_and_says_that_nothing_was_done(tmp_path: Path) -> None:
    async def story() -> None:
        config = settings(tmp_path, members=3)
        founding = Founding(tuple(dict.fromkeys(config.members, 0).items()), complete=True)
        with closing(open_storage(config.data, config.cluster, config.node, config.members)) as storage:
            storage.write([StateWrite(founding=founding)])
        server, _ = await started(config)
        with pytest.raises(Refused) as refused:
            await put(server, Put(b"k", b"v"))
        assert (refused.value.reason, refused.value.outcome) == (Reason.NO_LEADER, Outcome.FAILED)
        with pytest.raises(Refused):
            await get(server, Consistency.QUORUM)
        assert (await get(server, Consistency.STALE)).record is None
        assert server.service.status().leader is None
        await server.stop()

    run(story())


def test_rule_30_alone_of_three_at_its_first_start_it_waits_for_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        server, _ = await started(settings(tmp_path, members=3))
        with pytest.raises(Refused) as refused:
            await put(server, Put(b"k", b"v"))
        assert (refused.value.reason, refused.value.outcome) == (Reason.JOINING, Outcome.FAILED)
        with pytest.raises(Refused):
            await get(server, Consistency.STALE)
        status = server.service.status()
        assert (status.standing, status.waits_for, status.ready) == (Standing.FOUNDING, ["n2", "n3"], False)
        await server.stop()

    run(story())


def test_a_replica_whose_data_is_removed_stops_without_a_request(tmp_path: Path) -> None:
    async def story() -> None:
        config = settings(tmp_path)
        server, _ = await started(config)
        await put(server, Put(b"k", b"v"))
        config.data.rename(tmp_path / "aside")
        await asyncio.wait([server.ended])
        with pytest.raises(StorageError, match="was removed while the replica ran"):
            server.ended.result()
        await server.abandon()

    run(story())


def test_a_client_that_leaves_disturbs_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        server, _ = await started(settings(tmp_path))
        await until(lambda: server.service.status().ready)
        write = asyncio.create_task(put(server, Put(b"k", b"left")))
        await asyncio.sleep(0)
        write.cancel()
        assert await put(server, Put(b"k", b"stayed")) in {PutResult(1, 1), PutResult(2, 2)}
        await server.stop()

    run(story())


def test_rule_18_time_is_read_from_a_clock_that_nobody_sets() -> None:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime_ns(clock)
    assert before <= boot_clock() <= time.clock_gettime_ns(clock)
