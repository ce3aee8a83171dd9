"""Leases, locks and elections, at a front end."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kvstore.api.commands import KeyState, Record, RevokeLease, Transact, TransactResult
from kvstore.client import Client, Locked, LockHolder, LockLost, NoSuchLease
from kvstore.client.clock import boot_time_s
from tests.unit.kvstore.server.http.fake import Store, run


def at(story: Callable[[Store, Client], Awaitable[None]]) -> None:
    async def scenario(store: Store) -> None:
        async with Client([f"http://127.0.0.1:{store.port}"], exactly_once=False) as client:
            await story(store, client)

    run(scenario)


def end(store: Store, lease: int) -> None:
    store.replica.write(RevokeLease(lease), lambda _: None)


def test_a_lease_is_kept_alive_and_revoked_by_the_caller() -> None:
    async def story(store: Store, client: Client) -> None:
        lease = await client.lease(ttl_s=10)
        assert (lease.id, lease.ttl_s) == (1, 10.0)
        await client.put("a", b"", lease=lease)
        await lease.keep_alive()
        assert [found async for found in client.list()] == [KeyState(b"a", Record(b"", 2, 2, 1), 1)]
        await lease.revoke()
        assert await client.get("a") is None
        with pytest.raises(NoSuchLease, match="POST /leases grants a new one"):
            await lease.keep_alive()
        await lease.revoke()  # it is over, as it shall be

    at(story)


def test_a_lease_is_renewed_during_the_block_and_revoked_at_the_end() -> None:
    async def story(store: Store, client: Client) -> None:
        async with client.lease(ttl_s=1) as lease:
            await client.put("a", b"", lease=lease)
            held = store.replica.machine.lease_index.leases[lease.id]
            while held.version == 1:
                await store.replica.done.get()
            assert not lease.lost.is_set()
        assert not store.replica.machine.lease_index.leases
        assert await client.get("a") is None

    at(story)


def test_a_client_counts_a_lease_as_over_earlier_by_the_drift_bound() -> None:
    """Its clock may be slower than that of the leader."""

    async def story(store: Store, client: Client) -> None:
        before = boot_time_s()
        lease = await client.lease(ttl_s=600)
        assert before + 594 <= lease.lives_until <= boot_time_s() + 594
        await lease.keep_alive()
        assert lease.lives_until <= boot_time_s() + 594

    at(story)


def test_a_lease_that_has_ended_is_lost() -> None:
    async def story(store: Store, client: Client) -> None:
        async with client.lease(ttl_s=0.1) as lease:
            end(store, lease.id)
            await lease.lost.wait()

    at(story)


def test_a_lease_that_cannot_be_renewed_for_a_whole_ttl_is_lost() -> None:
    async def story(store: Store, client: Client) -> None:
        async with client.lease(ttl_s=0.1) as lease:
            store.replica.gate.clear()
            await lease.lost.wait()
            store.replica.gate.set()

    at(story)


def test_each_holder_of_a_lock_has_a_greater_fencing_token() -> None:
    async def story(store: Store, client: Client) -> None:
        assert await client.holder("deploy") is None
        async with client.lock("deploy", value=b"me\xff") as held:
            assert await client.holder("deploy") == LockHolder(held.fence, held.lease.id, b"me\xff")
            await client.put("a", b"1", fence=held.fence)
            assert await client.txn(Transact([held.fence.holds], [], [])) == TransactResult(True, 3, [])
            with pytest.raises(Locked, match="holds the lock, fence 2"):
                async with client.lock("deploy", wait_s=0):
                    raise AssertionError("held twice")
        with pytest.raises(LockLost) as lost:
            await client.delete("a", fence=held.fence)
        assert lost.value.fence == 0
        async with client.lock("deploy") as next_held:
            assert next_held.fence.token > held.fence.token
            with pytest.raises(LockLost) as lost:
                await client.put("a", b"2", fence=held.fence)
            assert lost.value.fence == next_held.fence.token
        assert not store.replica.machine.lease_index.leases

    at(story)


def test_a_lock_is_granted_in_the_order_of_the_queue() -> None:
    async def story(store: Store, client: Client) -> None:
        order: list[int] = []

        async def take(number: int) -> None:
            async with client.lock("deploy"):
                order.append(number)

        async with client.lock("deploy"):
            tasks = []
            for number in range(3):
                tasks.append(asyncio.create_task(take(number)))
                while len(store.replica.machine.lease_index.locks[b"deploy"]) < number + 2:
                    await store.replica.done.get()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2]

    at(story)


def test_a_client_leaves_the_queue_after_its_wait() -> None:
    async def story(store: Store, client: Client) -> None:
        async with client.lock("deploy"):
            with pytest.raises(Locked, match=r"after 0\.05 s"):
                async with client.lock("deploy", wait_s=0.05):
                    raise AssertionError("held twice")
            assert len(store.replica.machine.lease_index.locks[b"deploy"]) == 1

    at(story)


def test_a_lock_is_lost_with_its_lease() -> None:
    async def story(store: Store, client: Client) -> None:
        async with client.lock("deploy", ttl_s=0.1) as held:
            end(store, held.lease.id)
            await held.lost.wait()

    at(story)


def test_an_election_names_its_leader() -> None:
    async def story(store: Store, client: Client) -> None:
        assert await client.leader("scheduler") is None
        async with client.election("scheduler", value=b"n1") as elected:
            leader = await client.leader("scheduler")
            assert leader is not None
            assert (leader.value, leader.fence) == (b"n1", elected.fence)

    at(story)


def test_misuse_raises_an_error() -> None:
    async def story(store: Store, client: Client) -> None:
        with pytest.raises(ValueError, match="exclude each other"):
            await client.put("a", b"", lease=1, ttl_s=1)

    at(story)
