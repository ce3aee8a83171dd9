"""The blocking client at a front end: the same results as the asyncio client, from any thread."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import assert_type

import pytest

from kvstore.api.commands import DeleteResult, KeyState, Put, PutResult, Record, RevokeLease, Transact, TransactResult
from kvstore.api.key_range import starting_with
from kvstore.client import (
    Client,
    Compacted,
    ConditionFailed,
    Locked,
    NoSuchLease,
    SyncClient,
    SyncHeldLock,
    Unavailable,
    UnknownOutcome,
    WatchEvent,
)
from storage.base import first_of
from tests.unit.kvstore.server.http.fake import Store, run

Story = Callable[[Store, SyncClient], None]


def at(story: Story) -> None:
    """Run `story` in a thread of its own, and the front end in the event loop of this thread."""

    async def scenario(store: Store) -> None:
        def tell() -> None:
            with SyncClient([f"http://127.0.0.1:{store.port}"], exactly_once=False) as client:
                story(store, client)

        await asyncio.to_thread(tell)

    run(scenario)


def test_it_has_the_methods_of_the_asyncio_client() -> None:
    def calls(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}

    assert calls(SyncClient) == calls(Client)
    assert "progress" in inspect.signature(SyncClient.list).parameters
    assert SyncClient.get.__doc__ == Client.get.__doc__


def test_its_types_are_those_of_the_asyncio_client() -> None:
    """Checked by the type checker."""

    def story(store: Store, client: SyncClient) -> None:
        assert_type(client.put("a", b""), PutResult)
        assert_type(client.get("a"), Record | None)
        assert_type(client.list(page=1), Generator[KeyState, None, None])
        with client.lock("deploy") as held:
            assert_type(held, SyncHeldLock)

    at(story)


def test_keys() -> None:
    def story(store: Store, client: SyncClient) -> None:
        assert client.put("a", b"1") == PutResult(1, 1)
        assert client.get("a") == Record(b"1", 1, 1, 1)
        with pytest.raises(ConditionFailed):
            client.put("a", b"2", if_absent=True)
        assert client.txn(Transact([], [Put(b"b", b"")], [])) == TransactResult(True, 2, [PutResult(2, 1)])
        assert client.delete("a", if_revision=1) == DeleteResult(3, 1, 1)
        assert client.delete_span(starting_with(b"b")).deleted == 1
        assert client.get("a") is None

    at(story)


def test_a_list_in_pages_with_progress() -> None:
    def story(store: Store, client: SyncClient) -> None:
        for number in range(7):
            client.put(f"k{number}", b"")
        counts: list[int] = []
        assert [found.key for found in client.list(page=3, progress=counts.append)] == [b"k%d" % n for n in range(7)]
        assert counts == [3, 6, 7]
        assert next(iter(client.list(page=2))).key == b"k0"  # a list may be left before its end
        store.replica.machine.forget(first_of(4))
        with pytest.raises(Compacted):
            list(client.list(revision=2))

    at(story)


def test_a_watch_yields_each_change_at_once() -> None:
    def story(store: Store, client: SyncClient) -> None:
        client.put("a", b"1")
        watching = client.watch(from_revision=1)
        assert next(watching) == WatchEvent(1, b"a", Record(b"1", 1, 1, 1))
        for number in range(2, 5):
            client.put("a", b"")
            assert next(watching).revision == number
        watching.close()

    at(story)


def test_concurrent_writes_of_threads_are_batched() -> None:
    def story(store: Store, client: SyncClient) -> None:
        together = threading.Barrier(32)

        def put(number: int) -> PutResult:
            together.wait()
            return client.put(f"k{number}", b"%d" % number)

        with ThreadPoolExecutor(32) as threads:
            results = list(threads.map(put, range(32)))
        assert {result.version for result in results} == {1}
        assert {found.key for found in client.list()} == {b"k%d" % number for number in range(32)}

    at(story)


def test_leases() -> None:
    def story(store: Store, client: SyncClient) -> None:
        lease = client.lease(ttl_s=10)
        lease.keep_alive()
        lease.revoke()
        with pytest.raises(NoSuchLease):
            lease.keep_alive()
        with client.lease(ttl_s=0.1) as renewed:
            client.put("a", b"", lease=renewed)
            assert [each.id for each in client.leases()] == [renewed.id]
            store.replica.write(RevokeLease(renewed.id), lambda _: None)
            assert renewed.lost.wait(10)
        assert client.get("a") is None

    at(story)


def test_a_lock_is_released_when_the_block_fails() -> None:
    def story(store: Store, client: SyncClient) -> None:
        def fail() -> None:
            with client.lock("deploy", value=b"me") as held:
                client.put("a", b"", fence=held.fence)
                with pytest.raises(Locked), client.lock("deploy", wait_s=0):
                    raise AssertionError("held twice")
                raise LookupError("the block failed")

        with pytest.raises(LookupError, match="the block failed"):
            fail()
        assert client.holder("deploy") is None
        with client.election("deploy", value=b"me") as elected:
            leader = client.leader("deploy")
            assert leader is not None
            assert leader.fence == elected.fence
            assert not elected.lost.is_set()

    at(story)


def test_a_callback_of_the_client_cannot_call_it() -> None:
    def story(store: Store, client: SyncClient) -> None:
        client.put("a", b"")
        with pytest.raises(RuntimeError, match="SyncClient must not be called from its own event-loop thread"):
            list(client.list(progress=lambda _: client.get("a")))

    at(story)


def test_a_client_that_is_not_open_says_so() -> None:
    client = SyncClient(["http://127.0.0.1:9"], timeout_ms=1)
    with pytest.raises(RuntimeError, match="use it in `with`"):
        client.get("a")
    with client, pytest.raises(Unavailable):
        client.get("a")
    client.__exit__(None, None, None)  # closing it twice is no error
    with pytest.raises(RuntimeError, match="use it in `with`"):
        client.get("a")


def test_closing_the_client_ends_the_calls_of_other_threads() -> None:
    async def scenario(store: Store) -> None:
        store.replica.gate.clear()

        def tell() -> BaseException | None:
            with ThreadPoolExecutor(1) as threads:
                with SyncClient([f"http://127.0.0.1:{store.port}"], exactly_once=False) as client:
                    waiting = threads.submit(client.put, "a", b"")
                    asyncio.run_coroutine_threadsafe(store.replica.arrived.get(), loop).result()
                return waiting.exception()

        loop = asyncio.get_running_loop()
        assert isinstance(await asyncio.to_thread(tell), UnknownOutcome)

    run(scenario)
