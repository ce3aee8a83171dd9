"""After `kill -9`, every acknowledged write is kept, and the cluster serves while a majority lives."""

import asyncio
import itertools
from pathlib import Path

import pytest

from kvstore.server.http.problems import RETRY_AFTER
from kvstore.testing.process_cluster import ProcessCluster
from tests.cluster.harness import CallHistory, Ending, HttpClient, load, others, running, target, until

pytestmark = pytest.mark.cluster


async def all_serve(cluster: ProcessCluster, names: list[str], history: CallHistory) -> None:
    """Once a leader is known, each request is done at the first try."""
    async with HttpClient(cluster, history) as client:
        for name, key in itertools.product(names, history.keys):
            for call in (await client.put(name, key), await client.get(name, key), await client.delete(name, key)):
                assert call.ending is Ending.DONE, call.why


async def crash_and_return(cluster: ProcessCluster, victims: tuple[str, ...], history: CallHistory) -> None:
    """Kill under load; the rest carries on, and the dead come back."""
    async with load(cluster, history) as running_load:
        await running_load.more(100)
        cluster.kill(*victims)
        rest = others(cluster, *victims)
        await cluster.wait_ready(rest)
        await running_load.more(100)
        await all_serve(cluster, rest, history)
        cluster.start(victims)
        await cluster.wait_ready()
        await running_load.more(100)
    assert running_load.given_up == []


def test_any_one_of_three_may_be_killed_under_load(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            for victim in [leader, *others(cluster, leader)]:
                await crash_and_return(cluster, (victim,), history)
            await history.verify(cluster, least=300)

    asyncio.run(story())


@pytest.mark.slow
def test_any_two_of_five_may_be_killed_under_load(tmp_path: Path) -> None:
    """The leader with another one, the two after these, and the last one with the first."""

    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path, nodes=5) as cluster:
            leader = await cluster.wait_ready()
            first, second, third, fourth, fifth = leader, *others(cluster, leader)
            for victims in [(first, second), (third, fourth), (fifth, first)]:
                await crash_and_return(cluster, victims, history)
            await history.verify(cluster, least=300)

    asyncio.run(story())


def test_all_killed_at_once_under_load_come_back_with_every_acknowledged_write(tmp_path: Path) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster:
            for _ in range(2):
                async with load(cluster, history) as running_load:
                    await running_load.more(300)
                    cluster.kill(*cluster.replicas)
                    running_load.stopping = True
                cluster.start()
                await cluster.wait_ready()
            await history.verify(cluster, least=200)

    asyncio.run(story())


async def assert_unavailable(client: HttpClient, name: str) -> None:
    """Assert that calls that need a majority fail in time, and that stale reads still work."""
    path = target(b"k")
    calls = [("PUT", path), ("DELETE", path), ("GET", path), ("HEAD", path), ("GET", f"{path}?consistency=quorum")]
    for reply in await asyncio.gather(*(client.ask(method, name, path) for method, path in calls)):
        assert reply.status == 503
        assert f"Retry-After: {reply.headers['Retry-After']}\r\n".encode() == RETRY_AFTER
        assert reply.headers["Content-Type"] == "application/problem+json"
        if reply.body:
            problem = reply.problem()
            assert problem["type"] == "urn:kvstore:problem:no-leader"
            assert problem.get("outcome") in {None, "failed"}
    reply = await client.ask("GET", name, f"{path}?consistency=stale")
    assert (reply.status, reply.body) == (200, b"kept")
    assert int(reply.headers["KV-Applied-Slot"]) > 0
    assert int(reply.headers["KV-Applied-Revision"]) > 0
    assert int(reply.headers["KV-Age-Ms"]) > 0


@pytest.mark.parametrize("leader_lives", [True, False])
def test_without_a_majority_requests_end_with_503_until_one_comes_back(tmp_path: Path, leader_lives: bool) -> None:
    async def story() -> None:
        history = CallHistory()
        async with running(tmp_path) as cluster, HttpClient(cluster, history) as client:
            leader = await cluster.wait_ready()
            survivor = leader if leader_lives else others(cluster, leader)[0]
            dead = others(cluster, survivor)
            assert (await client.put(survivor, b"k", b"kept")).ending is Ending.DONE
            cluster.kill(*dead)
            on_its_way = asyncio.create_task(client.put(survivor, history.keys[0]))

            async def not_ready() -> bool:
                return (await client.ask("GET", survivor, "/readyz")).status == 503

            await until(not_ready)
            await assert_unavailable(client, survivor)
            call = await on_its_way
            assert call.ending in {Ending.UNKNOWN, Ending.FAILED}, call.why  # the dead may have received it
            assert (await client.ask("GET", survivor, "/livez")).status == 200
            cluster.start(dead[:1])
            await cluster.wait_ready([survivor, dead[0]])
            assert (await client.get(survivor, b"k")).value == b"kept"
            await all_serve(cluster, [survivor, dead[0]], history)
            await history.verify(cluster, least=16)

    asyncio.run(story())
